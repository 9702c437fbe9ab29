"""Finished work on disk, found again by a digest of all that made it: prompts' embeddings, latents of chunks, segments.

An entry is one safetensors file of arrays and, if it has one, a file of the same name beside it. Each appears whole or
not at all; the least recently used go first once all of them exceed the limit. A broken entry counts as missing, and a
disk that cannot be written costs one warning, no more: then the work is done again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from .safe_files import replacing

LIMIT = 4 * 2**30  # bytes
STALE = 3600  # seconds after which a file that was never finished is removed
ENTRY = ".safetensors"
SAMPLE = 4096  # bytes that a fingerprint reads at each place
LOG = logging.getLogger(__name__)


def digest(*values) -> str:
    """A text that is the same for the same content: arrays of any library by type, shape and numbers, containers and
    dataclasses by their parts in order, all else by its text."""
    sha = hashlib.sha256()
    _feed(sha, values)
    return sha.hexdigest()


def _feed(sha, value) -> None:
    if is_dataclass(value):
        _feed(sha, [type(value).__name__, *(getattr(value, field.name) for field in fields(value))])
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.ascontiguousarray(np.asarray(value.detach().cpu() if hasattr(value, "detach") else value))
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(array)
    elif isinstance(value, Mapping):
        _feed(sha, list(value.items()))
    elif isinstance(value, (list, tuple)):
        sha.update(f"({len(value)}".encode())
        for part in value:
            _feed(sha, part)
    else:
        sha.update(f"{value!r};".encode())


def fingerprint(*files: Path) -> str:
    """A short text that changes when files do: their names, sizes, times of change, and bytes at three places. Those
    tell checkpoints of one size apart where all files have one time, as in many containers' images."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, *_bytes(path)) for path in sorted(files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _bytes(path: Path) -> list[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        return [file.read(SAMPLE) for at in (0, size // 2, max(0, size - SAMPLE)) if file.seek(at) == at]


class Store:
    """Entries by key, in `folder`, which is made when the first is kept. limit: bytes of all entries together."""

    def __init__(self, folder: str | os.PathLike, limit: int = LIMIT):
        self.folder, self.limit = Path(folder), limit
        self.told = False  # that the disk fails

    def arrays(self, key: str) -> dict[str, np.ndarray] | None:
        """What was kept under the key; None if there is nothing, or nothing whole."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder / f"{key}{ENTRY}"
        try:
            found = load_file(path)
        except (OSError, ValueError, SafetensorError):
            return None
        with suppress(OSError):  # a store that can only be read serves too
            os.utime(path)
        return found

    def file(self, key: str, suffix: str) -> Path | None:
        """The file kept beside the arrays, if it is there."""
        path = self.folder / f"{key}{suffix}"
        with suppress(OSError):
            os.utime(path)
        return path if path.is_file() else None

    def keep(self, key: str, arrays: Mapping[str, np.ndarray], file: Path | None = None) -> None:
        """Keeps arrays, and a copy of a file (a second name of it where the disk allows), under the key.

        Not what exceeds the limit by itself.
        """
        size = sum(np.asarray(value).nbytes for value in arrays.values())
        try:
            if size + (file.stat().st_size if file else 0) > self.limit:
                return
            if file is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(self.folder / f"{key}{file.suffix}") as part:
                    link(file, part)
            self._put(key, arrays)
            self._trim()
        except OSError as error:
            if not self.told:
                LOG.warning("finished work is not kept in %s: %s", self.folder, error.strerror or error)
            self.told = True

    def _put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / f"{key}{ENTRY}") as part:
            part.write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))

    def make(self, key: str, size: int, write: Callable[[Path], None]) -> Path | None:
        """An entry that `write` makes as a file of so many bytes at the path it is given, whole or not at all; room is
        made before. None, and nothing is called, for one that exceeds the limit by itself; OSError when the disk fails.
        """
        if size > self.limit:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trim(self.limit - size)
        path = self.folder / f"{key}{ENTRY}"
        write(path)
        return path

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._found())

    def _found(self) -> list[tuple[int, int, Path]]:
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        return found

    def _trim(self, limit: int | None = None) -> None:
        for part in self.folder.glob("*.part"):
            with suppress(OSError):  # another process does the same, or on Windows has it open
                if time.time() - part.stat().st_mtime > STALE:
                    part.unlink()
        limit, found = self.limit if limit is None else limit, self._found()
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                break
            with suppress(OSError):  # one that cannot go now goes another time, and the next one instead of it
                path.unlink(missing_ok=True)
                total -= size


def link(source: Path, target: Path) -> None:
    """`target` becomes a second name of `source`'s file where the disk allows, else a copy. OSError."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
