"""Prompt embeddings, remembered: in memory for a run, on disk for good, so that a text encoder of 11 GB is loaded only
for a prompt never seen before.

An embedding is kept without its padding, under a hash of the cleaned prompt and of what encodes it. On disk each is a
safetensors file; the least recently used go first once all of them exceed the limit. A broken file counts as missing,
and a disk that cannot be written costs a warning, no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..checkpoint import Source
from ..safe_files import replacing
from .clean import prompt_clean
from .embedding import Embedding

LIMIT = 256_000_000  # bytes, in memory and on disk
WORTH = 256_000_000  # bytes of an encoder's files from which on the disk is worth it; smaller ones load in a moment
STALE = 3600  # seconds after which a file that was never finished is removed
LOG = logging.getLogger(__name__)


class DiskCache:
    """Arrays [n d] by name, in `folder`, which is made when the first is put. limit: bytes of all files together."""

    def __init__(self, folder: str | os.PathLike, limit: int = LIMIT):
        self.folder, self.limit = Path(folder), limit

    def get(self, name: str, width: int) -> np.ndarray | None:
        """The rows, or None if there are none, or none that are whole and of that width."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._path(name)
        try:
            rows = load_file(path)["rows"]
            os.utime(path)
        except (OSError, KeyError, ValueError, SafetensorError):
            return None
        return rows if rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == width else None

    def put(self, name: str, rows: np.ndarray) -> None:
        """Keeps float32 rows [n d]; the file appears whole or not at all."""
        from safetensors.numpy import save

        data = save({"rows": np.ascontiguousarray(rows)})
        if len(data) > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(name)) as part:
                part.write_bytes(data)
            self._trim()
        except OSError as error:
            LOG.warning("prompt embeddings are not kept: %s", error)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _trim(self) -> None:
        for part in self.folder.glob("*.part"):
            with suppress(FileNotFoundError):  # another process does the same
                if time.time() - part.stat().st_mtime > STALE:
                    part.unlink()
        files = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size


class Embeddings:
    """Prompts, cleaned here, -> their `Embedding`; `encode` is asked only for what is not known yet, one prompt at a
    time, so that a prompt's embedding never depends on the company it came in.

    encode: cleaned prompt -> Embedding. array: numpy -> the backend's array. key: names what encodes.
    """

    def __init__(
        self, encode: Callable, array: Callable, *, key: str, length: int, width: int,
        disk: DiskCache | None = None, limit: int = LIMIT,
    ):  # fmt: skip
        self.encode, self.array, self.key, self.length, self.width = encode, array, key, length, width
        self.disk, self.limit = disk, limit
        self.known: OrderedDict[str, np.ndarray] = OrderedDict()

    def __call__(self, prompt: str | list[str]) -> Embedding:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        found = [self._rows(prompt_clean(text)) for text in prompts]
        out = np.zeros((len(found), max(map(len, found)), self.width), dtype=np.float32)
        for row, rows in zip(out, found):
            row[: len(rows)] = rows
        return Embedding(self.array(out), self.length)

    def _rows(self, text: str) -> np.ndarray:
        name = hashlib.sha256(json.dumps([self.key, self.length, text]).encode()).hexdigest()
        rows = self.known.pop(name, None)
        if rows is None and self.disk is not None:
            rows = self.disk.get(name, self.width)
        if rows is None:
            rows = np.asarray(self.encode(text).rows, dtype=np.float32)[0].copy()
            if self.disk is not None and np.isfinite(rows).all():
                self.disk.put(name, rows)
        self.known[name] = rows
        while sum(kept.nbytes for kept in self.known.values()) > self.limit:
            self.known.popitem(last=False)
        return rows


def remember(
    source: Source, encode: Callable, array: Callable, *, where: str, folder: Path | None, **sizes
) -> Embeddings:
    """Embeddings of the text encoder that `source` holds, on disk too if it is large and there is a folder.

    where: backend and kind of device, since these round differently. sizes: length and width.
    """
    files = {stored.file for stored in source.tensors.values()}
    worth = sum(path.stat().st_size for path in files) >= WORTH
    if isinstance(source.tokenizer, Path):
        files |= {path for path in source.tokenizer.rglob("*") if path.is_file()}
    disk = DiskCache(folder / "prompts") if folder is not None and worth else None
    return Embeddings(encode, array, key=f"{where} {fingerprint(files)}", disk=disk, **sizes)


def fingerprint(files: Iterable[Path]) -> str:
    """A short text that changes when files do: their names, sizes and times of change."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
