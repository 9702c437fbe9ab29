"""`helios generate --live`: a video while it is made, for browsers, VLC and OBS of this machine.

The one file of the pack that listens: on loopback, while the command runs that was told to. It gives a page, a playlist
and the parts of one video (join/hls.py), and reads nothing that a request says but which of these it wants.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..config import check_whole
from ..join import Clip, frame_rate, hls

PORT = 8189
LINGER = 6  # seconds without a request, after which nobody is watching
PAGE = Path(__file__).parent.parent / "assets" / "live.html"
PART = rf"/(\d{{1,6}}){re.escape(hls.SUFFIX)}"
HELP = f"show the video while it is made at http://127.0.0.1:PORT, and as a playlist for VLC and OBS ({PORT})"


class Broadcast:
    """What is served: the clip so far. ended: no more will come; asked: when somebody last asked, in monotonic time."""

    def __init__(self, fps):
        self.none, self.clip = Clip(Path(), frame_rate(fps)), None
        self.ended, self.asked = False, None

    def growing(self, grow: Callable) -> Callable:
        """The same function of a clip and blocks; what it gives is served as soon as it is there."""

        def grown(*given) -> Clip:
            self.clip = grow(*given)
            return self.clip

        return grown

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """(Type, content) of what a request names; None for what there is not."""
        clip, part = self.clip, re.fullmatch(PART, path, re.ASCII)
        if path == "/":
            return "text/html; charset=utf-8", PAGE.read_bytes()
        if path == f"/{hls.LIST}":
            return hls.TYPES[".m3u8"], hls.playlist(clip or self.none, self.ended).encode()
        if clip is not None and path == f"/{hls.HEAD}":
            return hls.TYPES[".mp4"], hls.head(clip)
        if clip is not None and part and int(part[1]) < len(clip.segments):
            return hls.TYPES[hls.SUFFIX], hls.part(clip, int(part[1]))
        return None

    def linger(self) -> None:
        """The video is whole: waits until nobody watches any more."""
        self.ended = True
        with suppress(KeyboardInterrupt):
            self._wait()

    def _wait(self) -> None:
        while self.asked is not None and time.monotonic() - self.asked < LINGER:
            time.sleep(0.2)


@contextmanager
def live(port: int | None, fps) -> Iterator[Broadcast | None]:
    """A Broadcast at a port of this machine, until the block ends; None where no port is wanted. 0: any that is free.

    fps: of the video. ValueError for a port that cannot be had.
    """
    if port is None:
        yield None
        return
    from http.server import ThreadingHTTPServer

    check_whole("--live", port, 65535, least=0)
    shown = Broadcast(fps)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(shown))
    except OSError as error:
        raise ValueError(f"--live {port}: {error.strerror or error}; name another port") from error
    server.daemon_threads = True
    place = f"http://127.0.0.1:{server.server_port}"
    print(f"live: {place} in a browser, {place}/{hls.LIST} in VLC or OBS", file=sys.stderr)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield shown
    finally:
        server.shutdown()
        server.server_close()


def _handler(shown: Broadcast) -> type:
    from http.server import BaseHTTPRequestHandler

    class OfLoopback(BaseHTTPRequestHandler):
        """GET alone; of a page elsewhere whose name points here, and of what is not served, nothing."""

        protocol_version = "HTTP/1.1"

        def do_GET(self):
            host = self.headers.get("Host", "").rpartition(":")[0]
            try:
                found = shown.answer(self.path.partition("?")[0]) if host in ("127.0.0.1", "localhost") else None
            except (OSError, ValueError):  # its file is gone, for the run has ended
                found = None
            shown.asked = time.monotonic()
            kind, content = found or ("text/plain", b"")
            self.send_response(200 if found else 404)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", len(content)),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Nothing: the console has the progress bars."""

    return OfLoopback
