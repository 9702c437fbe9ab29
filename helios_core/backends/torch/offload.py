"""Transformer blocks streamed from host memory: while one computes, the next is copied to the device.

Two slots of device memory hold a block's matrices each, and two pinned buffers of that size stage them, so the weights
themselves need not be pinned: they stay where loading left them, mapped from the file where that is possible, and the
host holds no second copy. All else (norms, biases, tables, embeddings: a few MB per block) stays on the device.
A block is the same module either way, its matrices swapped in place, so adapters and quantised layers stream too.
Without CUDA the slots are filled by ordinary copies, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

ALIGNMENT = 256  # bytes; kernels read aligned matrices faster, and a view needs its dtype's alignment


def matrices(block: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a block that are streamed: those in host memory."""
    return [t for t in (*block.parameters(), *block.buffers()) if t.ndim == 2 and t.device.type == "cpu"]


def resident(model: nn.Module) -> list[Tensor]:
    """All else of a model: what is on the device for good."""
    streamed = {id(t) for block in model.blocks for t in matrices(block)}
    return [t for t in (*model.parameters(), *model.buffers()) if id(t) not in streamed]


def aligned(tensors: list[Tensor]) -> int:
    """Bytes that the tensors take in a slot."""
    return sum(_padded(t) for t in tensors)


def _padded(t: Tensor) -> int:
    return -(-t.nbytes // ALIGNMENT) * ALIGNMENT


class Slot:
    """Device memory for one block's matrices."""

    def __init__(self, nbytes: int, device: torch.device):
        self.memory = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.bound: list[tuple[Tensor, Tensor]] = []  # (parameter, its matrix in host memory)

    def views(self, tensors: list[Tensor], memory: Tensor) -> list[Tensor]:
        """Parts of `memory` shaped like the tensors, one after another."""
        out, start = [], 0
        for t in tensors:
            out.append(memory[start : start + t.nbytes].view(t.dtype).view(t.shape))
            start += _padded(t)
        return out

    def fetch(self, tensors: list[Tensor]) -> None:
        """Copies them into the slot."""
        for view, t in zip(self.views(tensors, self.memory), tensors, strict=True):
            view.copy_(t)

    def bind(self, tensors: list[Tensor]) -> None:
        """The tensors are read from the device from now on."""
        self.bound = [(t, t.data) for t in tensors]
        for t, view in zip(tensors, self.views(tensors, self.memory), strict=True):
            t.data = view

    def release(self) -> None:
        """They are those in host memory again."""
        for t, data in self.bound:
            t.data = data
        self.bound = []


class CudaSlot(Slot):
    """Fetches through pinned memory on a stream of its own; nothing waits but the device."""

    def __init__(self, nbytes: int, device: torch.device):
        super().__init__(nbytes, device)
        self.staging = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # the memory's last user may still be at it
        self.memory.record_stream(self.stream)
        self.fetched, self.computed = torch.cuda.Event(), torch.cuda.Event()

    def fetch(self, tensors: list[Tensor]) -> None:
        """Copies them into the staging memory now, from there into the slot once its last block is computed."""
        size = aligned(tensors)
        self.fetched.synchronize()  # the staging memory's last copy has left
        for view, t in zip(self.views(tensors, self.staging), tensors, strict=True):
            view.copy_(t)
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self.computed)
            self.memory[:size].copy_(self.staging[:size], non_blocking=True)
            self.fetched.record(self.stream)

    def bind(self, tensors: list[Tensor]) -> None:
        """The same, and the device waits for the copy."""
        torch.cuda.current_stream(self.memory.device).wait_event(self.fetched)
        super().bind(tensors)

    def release(self) -> None:
        """The same, and the next copy waits until the device has computed."""
        if self.bound:
            self.computed.record(torch.cuda.current_stream(self.memory.device))
        super().release()


class BlockStream:
    """Called with the blocks, gives them in order, each with its matrices on the device until the next is asked for."""

    def __init__(self, device):
        self.device, self.slots, self.size = torch.device(device), [], 0

    def __call__(self, blocks, *parts: str) -> Iterator[nn.Module]:
        """parts: the submodules of a block that are wanted; the whole if none are named."""
        self._prepare(blocks)
        streamed = [[t for part in parts or ("",) for t in matrices(block.get_submodule(part))] for block in blocks]
        self.slots[0].fetch(streamed[0])
        for i, block in enumerate(blocks):
            slot = self.slots[i % 2]
            slot.bind(streamed[i])
            yield block
            # Its kernels are queued by now, and run while the next block's matrices are on their way.
            if i + 1 < len(streamed):
                self.slots[(i + 1) % 2].fetch(streamed[i + 1])
            slot.release()

    @torch.inference_mode(False)
    def _prepare(self, blocks) -> None:
        """Slots for the largest block. A run that was stopped in the middle may have left a block bound."""
        self.release()
        size = max(aligned(matrices(block)) for block in blocks)
        if size > self.size:
            kind = CudaSlot if self.device.type == "cuda" else Slot
            self.slots, self.size = [], size
            self.slots = [kind(size, self.device) for _ in range(2)]

    def release(self) -> None:
        """All matrices are those in host memory again."""
        for slot in self.slots:
            slot.release()


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
