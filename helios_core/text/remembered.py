"""Prompt embeddings, remembered: in memory for a run, on disk for good, so that a text encoder of 11 GB is loaded only
for a prompt never seen before.

An embedding is kept without its padding, under a hash of the cleaned prompt and of what encodes it. On disk each is a
safetensors file; the least recently used go first once all of them exceed the limit. A broken file counts as missing,
and a disk that cannot be written costs a warning, no more.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..checkpoint import Source
from ..disk import Store, fingerprint
from .clean import prompt_clean
from .embedding import Embedding

LIMIT = 256_000_000  # bytes, in memory and on disk
WORTH = 256_000_000  # bytes of an encoder's files from which on the disk is worth it; smaller ones load in a moment


class Embeddings:
    """Prompts, cleaned here, -> their `Embedding`; `encode` is asked only for what is not known yet, one prompt at a
    time, so that a prompt's embedding never depends on the company it came in.

    encode: cleaned prompt -> Embedding. array: numpy -> the backend's array. key: names what encodes.
    """

    def __init__(
        self, encode: Callable, array: Callable, *, key: str, length: int, width: int,
        disk: Store | None = None, limit: int = LIMIT,
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

    def rows(self, prompts: list[str]) -> dict[str, np.ndarray]:
        """Their embeddings, fp32 [tokens, d], for another process to `learn`."""
        return {text: self._rows(prompt_clean(text)) for text in prompts}

    def learn(self, rows: dict[str, np.ndarray]) -> None:
        """Takes over what another process encoded with the same encoder."""
        self.known |= {self._name(prompt_clean(text)): found for text, found in rows.items()}

    def _name(self, text: str) -> str:
        return hashlib.sha256(json.dumps([self.key, self.length, text]).encode()).hexdigest()

    def _rows(self, text: str) -> np.ndarray:
        name = self._name(text)
        rows = self.known.pop(name, None)
        if rows is None and self.disk is not None:
            rows = self._fit(self.disk.arrays(name))
        if rows is None:
            rows = np.asarray(self.encode(text).rows, dtype=np.float32)[0].copy()
            if self.disk is not None and np.isfinite(rows).all():
                self.disk.keep(name, {"rows": rows})
        self.known[name] = rows
        while sum(kept.nbytes for kept in self.known.values()) > self.limit:
            self.known.popitem(last=False)
        return rows

    def _fit(self, found: dict[str, np.ndarray] | None) -> np.ndarray | None:
        """Rows that were kept, if they are such as this encoder gives."""
        rows = (found or {}).get("rows")
        fits = rows is not None and rows.dtype == np.float32 and rows.shape[1:] == (self.width,)
        return rows if fits else None


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
    disk = Store(folder / "prompts", LIMIT) if folder is not None and worth else None
    return Embeddings(encode, array, key=f"{where} {fingerprint(*files)}", disk=disk, **sizes)
