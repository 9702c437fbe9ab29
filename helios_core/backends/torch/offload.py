"""Transformer blocks streamed from host memory: while one computes, the next two are copied to the device.

As many blocks as fit stay on the device, spread evenly among the others, so that copies have time while they compute.
The matrices of those others take turns in two slots of device memory. Where the host has room, they are pinned once,
and the device copies from there by itself. Elsewhere they stay where loading left them, mapped from the file where
that is possible, and a thread stages them through two pinned buffers of a block's size, so the host holds no second
copy. All else (norms, biases, tables, embeddings: a few MB per block) stays on the device.
A block is the same module either way, its matrices swapped in place, so adapters and quantised layers stream too.
Without CUDA the slots are filled by ordinary copies, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...devices import host_free
from .pinned import PinnedMemory
from .slots import CudaSlot, Slot, StagedSlot, aligned

CPU = torch.device("cpu")
LEFT = 2 * 2**30  # bytes of host memory, when weights are pinned


def matrices(block: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a block that are streamed: those in host memory."""
    return [t for t in _two_dimensional(block) if t.device.type == "cpu"]


def _two_dimensional(block: nn.Module) -> list[Tensor]:
    return [t for t in (*block.parameters(), *block.buffers()) if t.ndim == 2]


def resident(model: nn.Module) -> list[Tensor]:
    """All else of a model: what is on the device for good."""
    streamed = {id(t) for block in model.blocks for t in matrices(block)}
    return [t for t in (*model.parameters(), *model.buffers()) if id(t) not in streamed]


class BlockStream:
    """Called with the blocks, gives them in order, each with its matrices on the device until the next is asked for.

    stay: the numbers of those that never leave the device. pinned: whether the others lie in pinned memory.
    planned: per model the working memory in bytes that was left free when it was decided which stay.
    """

    def __init__(self, device):
        self.device, self.slots, self.stay = torch.device(device), [], frozenset()
        self.memory, self.pinned, self.planned = PinnedMemory(), False, WeakKeyDictionary()

    def __call__(self, blocks, *parts: str) -> Iterator[nn.Module]:
        """parts: the submodules of a block that are wanted; the whole if none are named."""
        self._prepare(blocks)
        streamed = [self._streamed(i, block, *parts) for i, block in enumerate(blocks)]
        waiting, free, coming = iter([ts for ts in streamed if ts]), list(self.slots), []

        def fetch(slot: Slot) -> None:
            if (tensors := next(waiting, None)) is not None:
                slot.fetch(tensors)
                coming.append(slot)

        for slot in free:
            fetch(slot)
        for tensors, block in zip(streamed, blocks):
            if not tensors:
                yield block
                continue
            slot = coming.pop(0)
            slot.bind(tensors)
            yield block
            slot.release()  # its kernels are queued by now; the slot is filled again once they have run
            fetch(slot)

    def _streamed(self, index: int, block: nn.Module, *parts: str) -> list[Tensor]:
        """What of a block is not on the device. Of a device that is the host, `stay` alone says so."""
        if index in self.stay and self.device.type == "cpu":
            return []
        return [t for part in parts or ("",) for t in matrices(block.get_submodule(part))]

    @torch.inference_mode(False)
    def _prepare(self, blocks) -> None:
        """Slots for the largest block. A run that was stopped in the middle may have left a block bound.

        Where memory runs out there are none, and the next call tries again.
        """
        self.release()
        sizes = [self._room(self._streamed(i, block)) for i, block in enumerate(blocks)]
        size, wanted, kind = max(sizes), min(2, sum(map(bool, sizes))), self._kind()
        fits = all(type(slot) is kind and slot.memory.nbytes >= size for slot in self.slots)
        if len(self.slots) != wanted or not fits:
            self.slots = []
            self.slots = [self._slot(size) for _ in range(wanted)]

    def _room(self, tensors: list[Tensor]) -> int:
        return aligned(tensors)

    def _slot(self, nbytes: int) -> Slot:
        return self._kind()(nbytes, self.device)

    def _kind(self) -> type[Slot]:
        if self.device.type != "cuda":
            return Slot
        return CudaSlot if self.pinned else StagedSlot

    @torch.inference_mode(False)
    def keep(self, model: nn.Module, count: int) -> None:
        """Has so many blocks of the model stay on the device, at most all; the others go back to the host, and are
        pinned if it has room for that. Where the device's memory runs out, fewer stay."""
        self.release()
        blocks = model.blocks
        stay = spread(max(0, len(blocks) - count), len(blocks))
        for i in set(range(len(blocks))) - stay:
            _move(blocks[i], CPU)
        for i in sorted(stay):
            try:
                _move(blocks[i], self.device)
            except torch.cuda.OutOfMemoryError:
                _move(blocks[i], CPU)
                stay = frozenset(n for n in stay if n < i)
                break
        self.stay = stay
        if self.device.type == "cuda":
            self._pin([t for block in blocks for t in matrices(block)])

    def held(self, model: nn.Module) -> int:
        """Bytes of the device that a model and the slots take."""
        return occupied(model, self.device)

    def _pin(self, tensors: list[Tensor]) -> None:
        """Moves what streams into pinned memory, unless the host is short of it."""
        new = [t for t in tensors if t not in self.memory]
        free = host_free() if new else None
        self.pinned = not new
        if free is not None and free - LEFT >= aligned(new):
            with suppress(RuntimeError):  # of a system that pins no more
                self.memory.take(new)
                self.pinned = True

    def release(self) -> None:
        """All matrices are those in host memory again."""
        for slot in self.slots:
            slot.release()


def spread(streamed: int, blocks: int) -> frozenset[int]:
    """Which of the blocks stay on the device when so many stream: these lie as far apart as they can, none first."""
    leaving = {i for i in range(blocks) if (i + 1) * streamed // blocks > i * streamed // blocks}
    return frozenset(range(blocks)) - leaving


def _move(block: nn.Module, device: torch.device) -> None:
    for t in _two_dimensional(block):
        if not same(t.device, device):
            t.data = t.data.to(device)


def stream_blocks(model: nn.Module, device) -> nn.Module:
    """Makes a loaded transformer stream its blocks to the device; all but their matrices moves there now."""
    for t in resident(model):
        t.data = t.data.to(device)
    model.streamer = BlockStream(device)
    return model


@torch.inference_mode(False)
def place(model: nn.Module, device, *, streamed: bool = False) -> None:
    """Moves a loaded network to a device, tied tensors together. streamed: a transformer, as `stream_blocks` has it.

    What it kept on the device that it leaves is dropped.
    """
    if hasattr(model, "forget"):
        model.forget()
    if getattr(model, "streamer", None) is not None:
        model.streamer.release()
        model.streamer = None
    blocks = model.blocks if streamed else ()
    inside = {id(t) for block in blocks for t in (*block.parameters(), *block.buffers()) if t.ndim == 2}
    tied = defaultdict(list)
    for t in (*model.parameters(), *model.buffers()):
        tied[t.data_ptr(), t.shape].append(t)
    for group in tied.values():
        moved = group[0].data.to("cpu" if id(group[0]) in inside else device)
        for t in group:
            t.data = moved
    if streamed:
        stream_blocks(model, device)


def occupied(model: nn.Module, device) -> int:
    """Bytes of a network on a device: its tensors, tied ones once, and the slots that it streams through."""
    slots = [] if getattr(model, "streamer", None) is None else model.streamer.slots
    return size(model, device) + sum(slot.memory.nbytes for slot in slots if same(slot.memory.device, device))


def size(model: nn.Module, device=None) -> int:
    """Bytes of a network's tensors, tied ones once. device: of those on it."""
    found = [t for t in (*model.parameters(), *model.buffers()) if device is None or same(t.device, device)]
    return sum({(t.data_ptr(), t.shape): t.nbytes for t in found}.values())


def same(one: torch.device, other: torch.device) -> bool:
    """Whether two names are of one device: without an index it is the first."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)
