"""Device memory that the matrices of streamed blocks take turns in, and how they come there."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .pinned import padded


def aligned(tensors: list[Tensor]) -> int:
    """Bytes that the tensors take in a slot."""
    return sum(padded(t.nbytes) for t in tensors)


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
            start += padded(t.nbytes)
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
    """Fetches from pinned memory on a stream of its own; nothing waits but the device."""

    def __init__(self, nbytes: int, device: torch.device):
        super().__init__(nbytes, device)
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # the memory's last user may still be at it
        self.memory.record_stream(self.stream)
        self.fetched, self.computed = torch.cuda.Event(), torch.cuda.Event()

    def fetch(self, tensors: list[Tensor]) -> None:
        """Copies them into the slot once its last block is computed."""
        self._copy(tensors)

    def _copy(self, sources: list[Tensor]) -> None:
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self.computed)
            for view, source in zip(self.views(sources, self.memory), sources, strict=True):
                view.copy_(source, non_blocking=True)
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


class StagedSlot(CudaSlot):
    """Fetches what is not pinned: a thread copies it into pinned memory of the slot's own first."""

    def __init__(self, nbytes: int, device: torch.device):
        super().__init__(nbytes, device)
        self.staging = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="helios-fetch")
        self.job: Future | None = None

    def fetch(self, tensors: list[Tensor]) -> None:
        """The thread begins; the slot is filled once its last block is computed."""
        self.job = self.thread.submit(self._stage, [t.data for t in tensors])

    @torch.no_grad()
    def _stage(self, sources: list[Tensor]) -> None:
        self.fetched.synchronize()  # the staging memory's last copy has left
        staged = self.views(sources, self.staging)
        for view, source in zip(staged, sources, strict=True):
            view.copy_(source)
        self._copy(staged)

    def bind(self, tensors: list[Tensor]) -> None:
        """The same, once the thread has done its part; its errors are raised here."""
        job, self.job = self.job, None
        if job is not None:
            job.result()
        super().bind(tensors)

    def release(self) -> None:
        """The same; what the thread has in hand is waited for."""
        if self.job is not None:
            self.job.exception()
            self.job = None
        super().release()
