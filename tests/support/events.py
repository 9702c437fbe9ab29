"""What ComfyUI tells a browser while it works, read off its web socket with nothing but the standard library."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from base64 import b64encode
from collections import Counter


class Events:
    """Listens as client `name`, from `with` on. found: (time, kind, content): JSON messages, "bytes" the others."""

    def __init__(self, port: int, name: str):
        self.found: list[tuple[float, str, object]] = []
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = b64encode(os.urandom(16)).decode()
        lines = [f"GET /ws?clientId={name} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.stream = self.socket.makefile("rb")
        while self.stream.readline().strip():
            pass
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _listen(self) -> None:
        whole = b""
        while head := self.stream.read(2):
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self.stream.read(2 if size == 126 else 8), "big")
            whole += self.stream.read(size)
            if not head[0] & 128:
                continue
            self._keep(head[0] & 15, whole)
            whole = b""

    def _keep(self, code: int, data: bytes) -> None:
        if code == 1:
            message = json.loads(data)
            self.found.append((time.monotonic(), message["type"], message["data"]))
        elif code == 2:
            kind = {1: "picture", 3: "text"}.get(struct.unpack(">I", data[:4])[0], "bytes")
            self.found.append((time.monotonic(), kind, data[4:]))

    def of(self, kind: str) -> list:
        return [content for _, found, content in self.found if found == kind]

    def when(self, kind: str, wanted=lambda content: True) -> float | None:
        """When the first of a kind came that is wanted."""
        return next((at for at, found, content in self.found if found == kind and wanted(content)), None)

    def counts(self) -> Counter:
        return Counter(kind for _, kind, _ in self.found)


def text_of(data: bytes) -> tuple[str, str]:
    """(node, text) of a progress text."""
    size = struct.unpack(">I", data[:4])[0]
    return data[4 : 4 + size].decode(), data[4 + size :].decode()
