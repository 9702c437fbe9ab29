"""Weights that stay mapped in their files, asked for before they are used: the disk works while the processor does.

A page that is touched and not there is read by itself, and whoever touched it waits. Where the weights fit into memory
they are all brought in as they load; where they do not, each pass over the blocks asks for those that come next. The
system keeps what it likes of both. Measured by tests/benchmarks/reading.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from weakref import ref

from torch import Tensor, nn

from ...checkpoint import Source
from ...devices import host_free

ASKS = hasattr(os, "posix_fadvise")  # without waiting
PIECE = 2 << 20  # bytes asked for at a time
PAGE = 4096
BLOCKS = 2  # asked for beside the one that computes
GAP = 1 << 20  # bytes between two tensors that are read along

Range = tuple[Path, int, int]  # a file, where it begins there, bytes


def fits(source: Source) -> bool:
    """Whether the host has memory for all of a part's files."""
    free = host_free()
    return free is None or source.nbytes < free


def ask(path: Path, start: int, nbytes: int) -> None:
    """Has the system read a part of a file into its memory; does not wait for it where the system has a way to ask."""
    with suppress(OSError), path.open("rb", buffering=0) as file:  # whoever needs it will tell what is wrong
        if ASKS:
            for at in range(start, start + nbytes, PIECE):
                size = min(PIECE, start + nbytes - at)
                os.posix_fadvise(file.fileno(), at, size, os.POSIX_FADV_WILLNEED)
            return
        file.seek(start)
        data = memoryview(bytearray(PIECE))
        while nbytes > 0 and (found := file.readinto(data[: min(PIECE, nbytes)])):
            nbytes -= found


def bring(path: Path, start: int, data: Tensor) -> None:
    """Waits until bytes [n] that are mapped from a place in a file are in memory."""
    ask(path, start, len(data))
    data[::PAGE].sum()


def place(t: Tensor, mapped: dict[Path, Tensor]) -> Range | None:
    """Where a tensor lies in its file, if it is mapped. mapped: path -> its bytes."""
    held = inner(t)
    for path, data in mapped.items():
        start = held.data_ptr() - data.data_ptr() if held.device.type == "cpu" else -1
        if 0 <= start < len(data):
            return path, start, held.nbytes
    return None


def inner(t: Tensor) -> Tensor:
    """The codes of a quantised tensor of ComfyUI's; any other is itself."""
    return getattr(t, "_qdata", t)


def there(tensor: ref, address: int) -> bool:
    """Whether somebody has it still, where it was mapped."""
    found = tensor()
    return found is not None and inner(found).data_ptr() == address


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes in order, neighbours as one."""
    found: list[Range] = []
    for path, start, nbytes in sorted(ranges):
        last = found[-1] if found else None
        if last and last[0] == path and start <= last[1] + last[2] + GAP:
            found[-1] = (path, last[1], max(last[2], start + nbytes - last[1]))
        else:
            found.append((path, start, nbytes))
    return found


@cache
def reader() -> ThreadPoolExecutor:
    """The thread that asks: where the system's queue is full, asking waits."""
    return ThreadPoolExecutor(1, "reading ahead")


class Ahead:
    """Of a network's blocks: called with them, gives them in order, and has asked for the next ones by then.

    Weights that have moved elsewhere, or that nobody has any more, are not asked for.
    """

    def __init__(self, blocks: Iterable[nn.Module], mapped: dict[Path, Tensor]):
        self.found = [
            [
                (name, partial(there, ref(t), inner(t).data_ptr()), at)
                for name, t in (*block.named_parameters(), *block.named_buffers())
                if (at := place(t, mapped))
            ]
            for block in blocks
        ]
        self.now = (0, 0)  # pass and block

    @classmethod
    def of(cls, blocks: Iterable[nn.Module], mapped: dict[Path, Tensor]) -> Ahead | None:
        """None where nothing is mapped."""
        made = cls(blocks, mapped)
        return made if any(made.found) else None

    def __call__(self, blocks: Iterable[nn.Module], *parts: str) -> Iterator[nn.Module]:
        """parts: the submodules of a block that are used; all if none are named."""
        self.before(0, *parts)
        for i, block in enumerate(blocks):
            if i:
                self.before(i, *parts)
            yield block

    def before(self, i: int, *parts: str) -> None:
        """Block i is about to compute, and those that come after it after that."""
        self.now = (self.now[0] + (i == 0), i)
        for other in range(i + BLOCKS if i else 0, min(i + BLOCKS + 1, len(self.found))):
            reader().submit(self._ask, (self.now[0], other), parts)

    def _ask(self, when: tuple[int, int], parts: tuple[str, ...]) -> None:
        if when < self.now:  # the blocks were quicker
            return
        here = [(name, at) for name, is_there, at in self.found[when[1]] if is_there()]
        for at in joined(at for name, at in here if not parts or name.startswith(parts)):
            ask(*at)
