"""`helios osc`: stage and MIDI tools direct a run of ComfyUI's by Open Sound Control.

Messages come over UDP to this machine alone. Each becomes one request to the routes of ComfyUI's server, which has the
last word; what it says is printed. Needs python-osc.

    /helios/prompt 4 "a blue square"    of chunk 4; -1 is the next chunk that is not begun
    /helios/seed -1 7    /helios/cfg 4 2.0    /helios/drift 4 0.5    /helios/image 4 cat.png 0.5
    /helios/cut 4    /helios/end 4    /helios/pause    /helios/go_on    /helios/stop
"""

from __future__ import annotations

import argparse
import json
import sys

from ..config import check_whole

KINDS = {"prompt": (str,), "seed": (int,), "cfg": (float,), "drift": (float,), "image": (str, float)}
FLAGS, VERBS = ("cut", "end"), ("pause", "go_on", "stop")
WANTED = ", ".join(f"/helios/{word}" for word in (*KINDS, *FLAGS, *VERBS))
NEXT = -1  # the chunk that is not begun yet
PATIENCE = 10  # seconds


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of `helios osc`."""
    sub.add_argument("--port", type=int, default=9000, metavar="PORT", help="where messages come (%(default)s)")
    sub.add_argument("--server", default="http://127.0.0.1:8188", metavar="URL", help="ComfyUI's (%(default)s)")


def osc(args: argparse.Namespace) -> int:
    """Until Ctrl-C. ValueError where python-osc is missing, and for a port that cannot be had."""
    check_whole("--port", args.port, 65535)
    if not args.server.startswith(("http://", "https://")):
        raise ValueError(f"--server {args.server}: wanted an address such as http://127.0.0.1:8188")
    try:
        from pythonosc.dispatcher import Dispatcher
        from pythonosc.osc_server import BlockingOSCUDPServer
    except ImportError:
        raise ValueError("helios osc needs python-osc: pip install python-osc") from None
    heard = Dispatcher()
    heard.set_default_handler(lambda address, *given: print(directed(args.server, address, given), flush=True))
    try:
        server = BlockingOSCUDPServer(("127.0.0.1", args.port), heard)
    except OSError as error:
        raise ValueError(f"--port {args.port}: {error.strerror or error}; name another port") from error
    print(f"osc: udp 127.0.0.1:{args.port} directs {args.server}", file=sys.stderr)
    with server:
        server.serve_forever()
    return 0


def directed(server: str, address: str, given: tuple) -> str:
    """What the server says of a message, in a line."""
    try:
        return f"{address}: {_sent(server, *request(address, given))}"
    except ValueError as error:
        return f"{address}: {error}"


def _sent(server: str, verb: str, body: dict) -> str:
    found = ask(server, "runs")["runs"]
    if len(found) != 1 or len(found[0]["nodes"]) != 1:
        raise ValueError(f"wanted one run with one schedule in work; there are {len(found)} runs")
    place = f"runs/{found[0]['run']}/{found[0]['nodes'][0]}"
    if body.get("chunk") == NEXT:
        body["chunk"] = ask(server, place)["begun"]
    ask(server, f"{place}/{verb}", body)
    return f"done, chunk {body['chunk']}" if body else "done"


def request(address: str, given: tuple) -> tuple[str, dict]:
    """(Verb, body) of a message. ValueError for one that is none of ours."""
    word = address.removeprefix("/helios/")
    if address == f"/helios/{word}" and word in VERBS:
        return word, {}
    kinds = KINDS.get(word, () if word in FLAGS else None)
    if address != f"/helios/{word}" or kinds is None:
        raise ValueError(f"unknown; wanted one of {WANTED}")
    if len(given) != 1 + len(kinds) or not isinstance(given[0], int) or given[0] < NEXT:
        raise ValueError(f"wanted a chunk{', then ' if kinds else ''}{' and '.join(kind.__name__ for kind in kinds)}")
    values = [int(v) if kind is int and float(v).is_integer() else kind(v) for kind, v in zip(kinds, given[1:])]
    return "edit", {"chunk": given[0], word: values if len(values) > 1 else values[0] if values else True}


def ask(server: str, path: str, body: dict | None = None) -> dict:
    """The answer of one of the server's routes. ValueError with what it says where it refuses, or is not there."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    data = None if body is None else json.dumps(body).encode()
    asked = Request(f"{server.rstrip('/')}/helios/{path}", data, {"Content-Type": "application/json"})
    try:
        with urlopen(asked, timeout=PATIENCE) as answer:
            return json.load(answer)
    except HTTPError as error:
        said = error.read()
        raise ValueError(json.loads(said)["error"] if said[:1] == b"{" else f"{error.code} {error.reason}") from error
    except (URLError, OSError) as error:
        raise ValueError(f"{server} does not answer: {getattr(error, 'reason', error)}") from error
