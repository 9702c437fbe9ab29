"""`helios osc`: what a message of a stage tool asks of ComfyUI's server, and what is said of it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import osc


@pytest.mark.parametrize(
    ("address", "given", "verb", "body"),
    [
        ("/helios/prompt", (4, "a blue square"), "edit", {"chunk": 4, "prompt": "a blue square"}),
        ("/helios/seed", (-1, 7), "edit", {"chunk": -1, "seed": 7}),
        ("/helios/seed", (2, 7.0), "edit", {"chunk": 2, "seed": 7}),
        ("/helios/cfg", (2, 3), "edit", {"chunk": 2, "cfg": 3.0}),
        ("/helios/image", (2, "cat.png", 0.5), "edit", {"chunk": 2, "image": ["cat.png", 0.5]}),
        ("/helios/end", (9,), "edit", {"chunk": 9, "end": True}),
        ("/helios/pause", (1,), "pause", {}),  # a button's value says nothing
    ],
)
def test_a_message_is_a_verb(address, given, verb, body):
    assert osc.request(address, given) == (verb, body)


@pytest.mark.parametrize(
    ("address", "given"),
    [("/helios/x", ()), ("pause", ()), ("/helios/seed", (1,)), ("/helios/seed", ("1", 2)), ("/helios/cut", (-2,))]
    + [("/helios/seed", (1, "x")), ("/helios/cfg", (1, "x")), ("/helios/prompt", ()), ("/helios/../pause", ())],
)
def test_what_is_none_is_refused(address, given):
    with pytest.raises(ValueError):
        osc.request(address, given)


@pytest.fixture
def comfyui():
    """A server that has one run in work, and refuses a seed of 13."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"runs": [{"run": "one", "nodes": ["5"]}]} if self.path.endswith("/runs") else {"begun": 3}
            self.answer(200, found)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            self.answer(*((409, {"error": "no such luck"}) if body.get("seed") == 13 else (200, {})))

        def answer(self, status, found):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked, server.address = asked, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()


def test_the_server_is_asked_once_and_has_the_last_word(comfyui):
    assert osc.directed(comfyui.address, "/helios/seed", (-1, 7)) == "/helios/seed: done, chunk 3"
    assert comfyui.asked == [("/helios/runs/one/5/edit", {"chunk": 3, "seed": 7})]
    assert osc.directed(comfyui.address, "/helios/seed", (4, 13)) == "/helios/seed: no such luck"
    assert osc.directed(comfyui.address, "/helios/stop", ()) == "/helios/stop: done"
    assert "unknown; wanted one of /helios/prompt" in osc.directed(comfyui.address, "/helios/x", ())
    assert "does not answer" in osc.directed("http://127.0.0.1:9", "/helios/pause", ())


def test_messages_come_over_udp(comfyui, capsys):
    client = pytest.importorskip("pythonosc.udp_client", reason="no python-osc")
    with pytest.MonkeyPatch.context() as patch:
        from pythonosc.osc_server import BlockingOSCUDPServer

        made = []
        own = BlockingOSCUDPServer.server_activate
        patch.setattr(BlockingOSCUDPServer, "server_activate", lambda self: made.append(self) or own(self))
        line = ["osc", "--port", "9123", "--server", comfyui.address]
        at_work = threading.Thread(target=lambda: main(line), daemon=True)
        at_work.start()
        sender, end = client.SimpleUDPClient("127.0.0.1", 9123), time.monotonic() + 20
        while not comfyui.asked and time.monotonic() < end:
            sender.send_message("/helios/prompt", [4, "a blue square"])
            time.sleep(0.2)
        made[0].shutdown()
        at_work.join(10)
    assert comfyui.asked[0] == ("/helios/runs/one/5/edit", {"chunk": 4, "prompt": "a blue square"})


@pytest.mark.parametrize("line", [["--port", "0"], ["--server", "127.0.0.1"]])
def test_what_cannot_be_is_refused(line, capsys):
    assert main(["osc", *line]) == 2 and capsys.readouterr().err.startswith("helios")
