"""A safetensors file written tensor by tensor: the header first, then each tensor's bytes at their place.

Peak memory is one chunk. The file appears under its name only when it is whole, and never in place of another.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..disk import replacing
from .headers import BYTES, nbytes

Layout = Mapping[str, tuple[str, tuple[int, ...]]]


class Writer:
    """Tensors on their way into a file that `writing` opened; `put` gives each its bytes, in any order."""

    def __init__(self, file: BinaryIO, path: Path, layout: Layout, metadata: Mapping[str, str]):
        self.file, self.path = file, path
        # Wider types first, as the reference implementation orders them: every tensor is then aligned.
        names = sorted(layout, key=lambda name: (-BYTES[layout[name][0]], name))
        header, self.places, at = {"__metadata__": dict(metadata)}, {}, 0
        for name in names:
            dtype, shape = layout[name]
            end = at + nbytes(dtype, shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
            self.places[name], at = (at, end), end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.begin, self.size = 8 + len(text), 8 + len(text) + at
        file.write(len(text).to_bytes(8, "little") + text)

    def put(self, name: str, chunks: Iterable) -> None:
        """The bytes of one tensor, as bytes-like chunks. ValueError if they are too few or too many."""
        start, end = self.places.pop(name)
        self.file.seek(self.begin + start)
        written = sum(self.file.write(chunk) for chunk in chunks)
        if written != end - start:
            raise ValueError(f"{self.path}: {written} bytes for {name}, which has {end - start}")

    def finish(self) -> None:
        """The file in its full length. ValueError if a tensor was left out."""
        if self.places:
            raise ValueError(f"{self.path}: nothing was written for {', '.join(sorted(self.places)[:5])}")
        self.file.truncate(self.size)


@contextmanager
def writing(path: Path, layout: Layout, metadata: Mapping[str, str]) -> Iterator[Writer]:
    """A Writer of the file at `path`, whose folder is made. layout: name -> (dtype of the format, shape).

    ValueError if the file is there already, and for what the Writer refuses; OSError when the disk fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, overwrite=False) as part, part.open("rb+") as file:
        writer = Writer(file, path, layout, metadata)
        yield writer
        writer.finish()


def check_space(folder: Path, size: int) -> None:
    """ValueError if `size` bytes do not fit on the disk below `folder`, which need not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise ValueError(f"{folder} needs {size / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; make room")
