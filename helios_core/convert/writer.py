"""A safetensors file written tensor by tensor: the header first, then each tensor's bytes at their place.

Peak memory is one chunk. The file appears under its name only when it is whole, and never in place of another.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..checkpoint import BYTES, nbytes

Layout = Mapping[str, tuple[str, tuple[int, ...]]]


class Writer:
    """A context manager. layout: name -> (dtype of the format, shape); `put` gives each its bytes, in any order.

    ValueError if the file is there already, if a tensor's bytes are too few or too many, or if one was left out.
    """

    def __init__(self, path: Path, layout: Layout, metadata: Mapping[str, str]):
        if path.exists():
            raise ValueError(f"{path} exists already; nothing is overwritten, choose another name or remove it")
        self.path, self.part = path, path.with_name(f"{path.name}.{os.getpid()}.part")
        # Wider types first, as the reference implementation orders them: every tensor is then aligned.
        names = sorted(layout, key=lambda name: (-BYTES[layout[name][0]], name))
        header, self.places, at = {"__metadata__": dict(metadata)}, {}, 0
        for name in names:
            dtype, shape = layout[name]
            end = at + nbytes(dtype, shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
            self.places[name], at = (at, end), end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        self.header = text + b" " * (-len(text) % 8)
        self.size = 8 + len(self.header) + at

    def __enter__(self) -> Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.part.open("xb")
        self.file.write(len(self.header).to_bytes(8, "little") + self.header)
        return self

    def put(self, name: str, chunks: Iterable) -> None:
        """The bytes of one tensor, as bytes-like chunks."""
        start, end = self.places.pop(name)
        self.file.seek(8 + len(self.header) + start)
        written = sum(self.file.write(chunk) for chunk in chunks)
        if written != end - start:
            raise ValueError(f"{self.path}: {written} bytes for {name}, which has {end - start}")

    def __exit__(self, kind, *_) -> None:
        try:
            self.file.truncate(self.size)
            self.file.close()
            if kind is None and self.places:
                raise ValueError(f"{self.path}: nothing was written for {', '.join(sorted(self.places)[:5])}")
            if kind is None:
                os.rename(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)


def check_space(folder: Path, size: int) -> None:
    """ValueError if `size` bytes do not fit on the disk below `folder`, which need not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise ValueError(f"{folder} needs {size / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; make room")
