"""Quantised weights, kept: what quantising a transformer gave, in a file that the next load finds.

Loading then reads a half or a quarter of the bytes, maps what the CPU computes with, and is the same to the bit. Files
lie beside the cache of prompts, under a digest of the files they were made of, the form, and this version of it; the
least recently used go first once all of them exceed the limit, which is no more than a share of the disk. VARIABLE
says "off", or how many GB.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..checkpoint import KINDS, Source, Stored, headers, is_quantised, precision, progress, stored_tensors, writing
from ..disk import Store, digest, fingerprint

LOG = logging.getLogger(__name__)
VARIABLE = "HELIOS_WEIGHTS_CACHE"
FOLDER = "weights"
LIMIT = 64 * 10**9  # bytes
SHARE = 2  # of what is free on the disk, and what is kept, no more than one part in so many
WORTH = 10**9  # bytes of weights to quantise from which on it is worth a file
VERSION = 1  # of what the quantisers give; another number if their bytes change
PLAIN = ("F32", "F16", "BF16")


class KeptWeights:
    """Files of quantised weights in a folder. limit: bytes of all of them."""

    def __init__(self, folder: Path, limit: int):
        self.store = Store(folder, limit)
        self.stuck: set[Path] = set()  # broken files that cannot be removed

    @classmethod
    def of(cls, folder: Path | None) -> KeptWeights | None:
        """In a folder of the cache. None without one, and where VARIABLE says off. ValueError for what says nothing."""
        said = os.environ.get(VARIABLE, "").strip().lower()
        if folder is None or said in ("off", "0", "none"):
            return None
        try:
            limit = int(float(said) * 1e9) if said else LIMIT
            if limit <= 0:
                raise ValueError
        except (ValueError, OverflowError):
            raise ValueError(
                f"{VARIABLE} is {said!r}; wanted off, or how many GB of quantised weights to keep"
            ) from None
        return cls(folder / FOLDER, limit)

    def find(self, source: Source, kind: str, make: Callable) -> Source:
        """A transformer's source in which the weights to quantise are quantised already, in a file that is found or
        made; as it is where there is little to do or no room.

        kind: one of precision.KINDS; what else is ignored. make: a backend's `quantised_bytes`.
        """
        plain = to_quantise(source)
        simple = all(s.scale is None and s.marks is None and s.dtype in PLAIN for s in plain.values())
        if kind not in KINDS or not simple or self.work(source) < WORTH:
            return source
        facts = [(name, stored.key, stored.dtype, stored.shape, stored.start) for name, stored in sorted(plain.items())]
        key = digest(VERSION, kind, fingerprint(*source.files), facts)[:32]
        layout = {}
        for name, stored in plain.items():
            layout |= precision.quantised_layout(name, stored.shape, kind)
        path = self.store.file(key, ".safetensors")
        found = None if path is None or path in self.stuck else self.read(path, layout, kind)
        if found is None and path not in self.stuck:
            path = self.make(source, plain, kind, key, layout, make)
            found = None if path is None else self.read(path, layout, kind)
        return source if found is None else replace(source, tensors=source.tensors | found)

    def work(self, source: Source) -> int:
        """Bytes that are read for quantising."""
        return sum(stored.nbytes for stored in to_quantise(source).values())

    def make(self, source: Source, plain: dict, kind: str, key: str, layout: dict, make: Callable) -> Path | None:
        """Quantises into a new file, weight by weight. None where it cannot be kept, which is said."""
        size, room = sum(headers.nbytes(*tensor) for tensor in layout.values()), self.room()

        def write(path: Path) -> None:
            with writing(path, layout, {precision.METADATA: kind, "made_of": str(source.path)}) as out:
                for name, stored in sorted(plain.items(), key=lambda item: item[1][:2]):
                    for part, chunks in make(name, stored, kind):
                        out.put(part, chunks)
                    progress.tell(stored.nbytes)

        try:
            store = Store(self.store.folder, min(self.store.limit, room))
            path = store.make(key, size + size // 100, write)
        except OSError as error:
            LOG.warning("quantised weights are not kept in %s: %s", self.store.folder, error)
            return None
        except ValueError:
            if path := self.store.file(key, ".safetensors"):  # another process made it meanwhile
                return path
            raise
        if path is None:
            LOG.warning(
                "the quantised weights, %.1f GB, are not kept: %s may take %.1f GB (%s, or half of its disk)",
                *(size / 1e9, self.store.folder, store.limit / 1e9, VARIABLE),
            )
        else:
            LOG.warning("the quantised weights, %.1f GB, are kept in %s; %s=off keeps none", size / 1e9, path, VARIABLE)
        return path

    def room(self) -> int:
        """Bytes that all files may take, for the disk's sake."""
        place = next(p for p in (self.store.folder, *self.store.folder.absolute().parents) if p.exists())
        return (shutil.disk_usage(place).free + self.store.size()) // SHARE

    def read(self, path: Path, layout: dict, kind: str) -> dict | None:
        """Name -> Stored of what is in a file; None if that is not what it should be: then it goes."""
        try:
            found = headers.read_header(path)
            _check(path, found, layout, kind)
            return stored_tensors(path, "transformer", {name: name for name in found}, found, {})
        except ValueError as error:
            self.discard(path, error)
            return None

    def blamed(self, error: OSError | ValueError, found: Source, own: Source) -> bool:
        """Whether what was kept is why reading `found`, instead of `own`, failed; then it goes, if it did not."""
        broken = [path for path in set(found.files) - set(own.files) if str(path) in str(error)]
        for path in broken:
            self.discard(path, error)
        return bool(broken)

    def discard(self, path: Path, why: Exception) -> None:
        """Removes a broken file and says so."""
        LOG.warning("the kept weights %s are broken and go, they are made anew: %s", path, why)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self.stuck.add(path)
            LOG.warning("%s cannot be removed (%s); remove it, or name another folder in HELIOS_CACHE", path, error)


def to_quantise(source: Source) -> dict[str, Stored]:
    """Name -> weight of a transformer's linear layers that are not quantised yet."""
    return {n: s for n, s in source.tensors.items() if is_quantised(n) and s.kept is None}


def _check(path: Path, found: dict, layout: dict, kind: str) -> None:
    if {name: (info.dtype, info.shape) for name, info in found.items()} != layout:
        raise ValueError(f"{path} holds other weights than its name says")
    if headers.read_metadata(path).get(precision.METADATA) != kind:
        raise ValueError(f"{path} does not say that its weights are {kind}")
