"""`helios generate --live`: what a player gets while the video is made, and what nobody gets."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import suppress

import av
import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import live
from helios_video.helios_core.join import hls, video


class Watcher(threading.Thread):
    """Asks for the playlist until the video is whole, as players do, and then plays it."""

    def __init__(self, capsys_port):
        super().__init__(daemon=True)
        self.port, self.lists, self.frames, self.failed = capsys_port, [], [], None
        self.answers = {}

    def get(self, path: str, host: str = "127.0.0.1"):
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            asked.request("GET", path, headers={"Host": f"{host}:{self.port}"})
            answer = asked.getresponse()
            return answer.status, answer.read()
        finally:
            asked.close()

    def run(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and not (self.lists and "ENDLIST" in self.lists[-1]):
            with suppress(ConnectionError):
                self.lists.append(self.get(f"/{hls.LIST}")[1].decode())
            time.sleep(0.05)
        for path in ("/", f"/{hls.HEAD}", "/0.m4s", "/9.m4s", "/../x", "/chunk_0000.mp4", "/-1.m4s", "/0.m4s?x=1"):
            self.answers[path] = self.get(path)
        self.answers["elsewhere"] = self.get("/", host="elsewhere.example")
        with av.open(f"http://127.0.0.1:{self.port}/{hls.LIST}") as file:
            self.frames = [frame.to_ndarray() for frame in file.decode(video=0)]


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def watcher(monkeypatch):
    monkeypatch.setattr(live, "LINGER", 1.0)
    made = Watcher(free_port())
    made.start()
    return made


def test_a_player_gets_every_frame_while_it_is_made(fake, watcher, tmp_path, capsys):
    line = ["generate", "--prompt", "a red circle", "--frames", "99", "--live", str(watcher.port), "-o", "out.mp4"]
    assert main(line) == 0
    watcher.join(30)
    said = capsys.readouterr()
    assert said.out == "out.mp4\n" and f"http://127.0.0.1:{watcher.port}/video.m3u8 in VLC" in said.err
    with av.open("out.mp4") as file:
        assert np.array_equal(watcher.frames, [frame.to_ndarray() for frame in file.decode(video=0)])
    assert len(watcher.frames) == 99 and watcher.lists[-1].count("#EXTINF") == 3
    assert all(
        later.startswith(before.removesuffix("#EXT-X-ENDLIST\n"))
        for before, later in zip(watcher.lists, watcher.lists[1:])
    )
    answers = watcher.answers
    assert b"<video" in answers["/"][1] and b"avcC" in answers["/head.mp4"][1] and b"moof" in answers["/0.m4s"][1]
    assert answers["/0.m4s?x=1"][0] == 200
    refused = [answers[path] for path in ("/9.m4s", "/../x", "/chunk_0000.mp4", "/-1.m4s", "elsewhere")]
    assert refused == [(404, b"")] * 5
    assert "live" not in video.read_metadata("out.mp4")["helios"], "it changes nothing of the video"
    with pytest.raises(ConnectionError):
        watcher.get("/")


def test_nobody_waits_where_nobody_watches(fake, capsys):
    start = time.monotonic()
    assert main(["generate", "--prompt", "a", "--frames", "33", "--live", "0"]) == 0
    assert time.monotonic() - start < live.LINGER and "live: http://127.0.0.1:" in capsys.readouterr().err


def test_what_cannot_be_served_is_refused_before_anything_is_made(fake, tmp_path, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["generate", "--prompt", "a", "--live", port]) == 2
    assert "name another port" in capsys.readouterr().err
    assert main(["generate", "--prompt", "a", "--live", "70000"]) == 2
    (tmp_path / "prompts.txt").write_text("a\n")
    assert main(["generate", "--prompts-file", "prompts.txt", "--live"]) == 2
    assert "shows one video" in capsys.readouterr().err and not list(tmp_path.glob("*.mp4"))
