"""Host memory that a GPU copies from by itself, while the host does something else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ALIGNMENT = 256  # bytes; kernels read aligned matrices faster, and a view needs its dtype's alignment
PIECE = 2**30  # bytes; torch rounds every piece of pinned memory up to a power of two


def padded(nbytes: int) -> int:
    """Bytes that a tensor takes where several lie one after another."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class PinnedMemory:
    """Has tensors lie in pinned memory, many in one piece. A piece lives as long as a tensor in it."""

    def __init__(self):
        self.places: set[int] = set()

    def __contains__(self, t: Tensor) -> bool:
        return t.data_ptr() in self.places

    def take(self, tensors: list[Tensor]) -> None:
        """Moves them there, in place. RuntimeError where the system pins no more; those moved before stay."""
        for nbytes, group in pieces(tensors):
            memory, start = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), 0
            for t in group:
                view = memory[start : start + t.nbytes].view(t.dtype).view(t.shape)
                t.data = view.copy_(t.data)
                start += padded(t.nbytes)
                self.places.add(t.data_ptr())


def pieces(tensors: list[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
    """(bytes, tensors) of pieces: PIECE bytes each if they fill one, and no more than the last ones need."""
    group, taken = [], 0
    for t in tensors:
        if group and taken + padded(t.nbytes) > PIECE:
            yield taken, group
            group, taken = [], 0
        group.append(t)
        taken += padded(t.nbytes)
    if group:
        yield taken, group
