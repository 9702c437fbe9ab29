"""A transformer's blocks shared out over the processes: each holds a part of every matrix on its device, and all gather
a block's before it computes, the next two while it does.

What FSDP does, by the streaming of offload.py: the shares are bytes, so quantised weights and adapters' are shared out
like any. What is no matrix (norms, biases, tables, embeddings) is everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from .offload import BlockStream, matrices
from .parallel import Ranks, exchange
from .pinned import padded
from .slots import Slot


class Shares:
    """This process's shares of tensors, made when they are first asked for."""

    def __init__(self, ranks: Ranks, device: torch.device):
        self.number, self.count, self.device = ranks.everyone, ranks.world, device
        self.group = ranks.weights
        self.held: dict[int, tuple[Tensor, Tensor]] = {}  # by id -> the tensor, its share

    def size(self, t: Tensor) -> int:
        """Bytes of a share."""
        return padded(-(-t.nbytes // self.count))

    def of(self, t: Tensor) -> Tensor:
        """This process's bytes of a tensor in host memory, on the device; the last ones are padded."""
        if id(t) not in self.held:
            n, whole = self.size(t), t.data.contiguous().view(-1).view(torch.uint8)
            own = torch.zeros(n, dtype=torch.uint8)
            part = whole[self.number * n : (self.number + 1) * n]
            own[: len(part)] = part
            self.held[id(t)] = (t, own.to(self.device))
        return self.held[id(t)][1]

    def gather(self, t: Tensor, whole: Tensor):
        """Begins to gather all shares of a tensor into `whole`; gives what is to be waited for."""
        share = self.of(t)
        with exchange():
            return distributed.all_gather_into_tensor(whole, share, group=self.group, async_op=True)

    @property
    def nbytes(self) -> int:
        """Of all shares here."""
        return sum(share.nbytes for _, share in self.held.values())


class SharedSlot(Slot):
    """Device memory that a block's matrices are gathered in."""

    def __init__(self, nbytes: int, device: torch.device, shares: Shares):
        super().__init__(nbytes, device)
        self.shares, self.coming = shares, []

    def _room(self, t: Tensor) -> int:
        return self.shares.count * self.shares.size(t)

    def views(self, tensors: list[Tensor], memory: Tensor) -> list[Tensor]:
        """As Slot has it."""
        out, start = [], 0
        for t in tensors:
            out.append(memory[start : start + t.nbytes].view(t.dtype).view(t.shape))
            start += self._room(t)
        return out

    def fetch(self, tensors: list[Tensor]) -> None:
        """All processes do so for the same tensors, in one order."""
        start = 0
        for t in tensors:
            self.coming.append(self.shares.gather(t, self.memory[start : start + self._room(t)]))
            start += self._room(t)

    def bind(self, tensors: list[Tensor]) -> None:
        """The same, once they are there."""
        self._wait()
        super().bind(tensors)

    def release(self) -> None:
        """The same; what is on its way is waited for."""
        self._wait()
        super().release()

    def _wait(self) -> None:
        coming, self.coming = self.coming, []
        with exchange():
            for work in coming:
                work.wait()


class SharedStream(BlockStream):
    """Gives blocks in order, each whole until the next is asked for. No block stays whole."""

    def __init__(self, device, ranks: Ranks):
        super().__init__(device)
        self.shares = Shares(ranks, self.device)

    def _room(self, tensors: list[Tensor]) -> int:
        return sum(self.shares.count * self.shares.size(t) for t in tensors)

    def _kind(self) -> Callable:
        return SharedSlot

    def _slot(self, nbytes: int) -> Slot:
        return SharedSlot(nbytes, self.device, self.shares)

    def keep(self, model: nn.Module, count: int) -> None:
        """As BlockStream has it; here none stays."""

    def held(self, model: nn.Module) -> int:
        """As BlockStream has it, with the shares."""
        return super().held(model) + self.shares.nbytes


def share_blocks(model: nn.Module, ranks: Ranks) -> int:
    """Has a transformer whose blocks stream share them out; bytes of this process's part, 0 where they were shared
    before. All processes call it for the same one."""
    if isinstance(model.streamer, SharedStream):
        return 0
    model.streamer.release()
    model.streamer = SharedStream(model.streamer.device, ranks)
    for block in model.blocks:
        for t in matrices(block):
            model.streamer.shares.of(t)
    return model.streamer.shares.nbytes
