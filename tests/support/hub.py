"""A Hugging Face hub on this machine, with one repository of files: as much of it as huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from time import sleep

SHA = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """files: path in the repository -> bytes. slow: the path whose first download stops half way, as `stalled` tells;
    for so many seconds the line stands still before it goes dead. given: paths that were sent, and from which byte on.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], slow: str, seconds: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.slow, self.seconds, self.given, self.stalled = files, slow, seconds, [], Event()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing is printed."""

    def do_HEAD(self):
        """Of a file."""
        self.do_GET()

    def do_GET(self):
        """The list of files, or a file from a byte on."""
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            return self.list_files(path)
        if f"/resolve/{SHA}/" not in path:
            return self.send_error(404)
        name = path.partition(f"/resolve/{SHA}/")[2]
        data = self.server.files[name]
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if self.command == "GET":
            self.server.given.append((name, start))
        self.send_response(206 if asked else 200)
        about = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        about |= {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self.give(data[start:], about, slow=self.command == "GET" and name == self.server.slow)

    def list_files(self, path: str) -> None:
        """As /api/models/OWNER/NAME has it, or its tree."""
        if "/tree/" in path:
            found = [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in self.server.files.items()]
        else:
            siblings = [{"rfilename": n, "size": len(d), "blobId": "0"} for n, d in self.server.files.items()]
            found = {"id": "BestWishYsh/Helios-Distilled", "sha": SHA, "siblings": siblings}
        self.send_response(200)
        self.give(json.dumps(found).encode(), {"Content-Type": "application/json"})

    def give(self, data: bytes, about: dict[str, str], slow: bool = False) -> None:
        """Headers and body; slow: half of it, then nothing."""
        for key, value in {**about, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if slow:
            self.server.slow = ""
            self.wfile.write(data[: len(data) // 2])
            self.server.stalled.set()
            self.close_connection = True
            sleep(self.server.seconds)
        elif self.command == "GET":
            self.wfile.write(data)


@contextmanager
def serving(folder: Path, others: dict[str, bytes], slow: str = "", seconds: float = 0) -> Iterator[Hub]:
    """A hub with the files of a folder, and others."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    hub = Hub({**files, **others}, slow, seconds)
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
