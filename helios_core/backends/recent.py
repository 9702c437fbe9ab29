"""A small memory for what a model would make again and again: a prompt's keys and values, tables of rotations."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Kept(NamedTuple):
    """A value, and weak references to the objects that it was made from."""

    value: Any
    sources: list[weakref.ref]


class Recent:
    """The last `count` values that were asked for, by key. The one asked for longest ago makes room."""

    def __init__(self, count: int):
        self.count = count
        self.kept: dict[Hashable, Kept] = {}

    def __call__(self, key: Hashable, make: Callable[[], Any], sources: Sequence = ()) -> Any:
        """The value of that key, made if it is not known. sources: objects that it is made from, known by identity.

        They are not kept alive, and what was made from one that is gone is made anew.
        """
        key = (key, tuple(map(id, sources)))
        kept = self.kept.pop(key, None)
        if kept is None or any(source() is None for source in kept.sources):
            kept = None  # its memory is free before the new value takes some
            while len(self.kept) >= self.count:
                del self.kept[next(iter(self.kept))]
            kept = Kept(make(), [weakref.ref(source) for source in sources])
        self.kept[key] = kept
        return kept.value

    def clear(self) -> None:
        """Nothing is known any more."""
        self.kept.clear()


def digest(rows: np.ndarray) -> bytes:
    """Of an array's numbers and shape: the same for the same content, wherever it lies."""
    sha = hashlib.sha256(repr((rows.shape, rows.dtype.str)).encode())
    sha.update(np.ascontiguousarray(rows))
    return sha.digest()
