"""What a run on fake CUDA tensors costs: FLOPs, bytes that kernels move, live memory, and waits of the host.

Runs are those of tests/benchmarks/counted.py. A wait is counted where the host stands still until the device has done
all it was given: a number that is looked at, and a copy between host and device that is not told to go on, or not from
or into pinned memory. Waiting for an event, which is for what was given long before, is counted apart.
"""

from __future__ import annotations

import traceback
import weakref

import torch
import torch.nn.functional as F
from helios_video.helios_core.backends.torch.counting import Work, leaves

from . import fake_cuda
from .fake_cuda import aten

LOOKS = {aten._local_scalar_dense.default: "number", aten.nonzero.default: "nonzero", aten.equal.default: "equal"}
COPIES = (aten._to_copy.default, aten.copy_.default)


class Counts(fake_cuda.Live):
    """work: FLOPs and bytes of what the device does; waits: what the host waited for, and where; events: how many."""

    def __init__(self):
        super().__init__()
        self.work, self.waits, self.events = Work(), [], 0
        self.pinned: set[int] = set()

    def begin(self) -> None:
        """All is counted from here."""
        self.reset()
        self.work.clear()
        self.waits.clear()
        self.events = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = leaves((args, kwargs))
        if func in LOOKS and on_gpu(tensors):
            self.wait(LOOKS[func])
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func in COPIES:
            self._copy(func, args, kwargs, out)
        elif on_gpu(tensors) or on_gpu(leaves(out)):
            self.work.add(func, args, kwargs, out)
        return out

    def wait(self, what: str) -> None:
        """The host waits for the device."""
        frames = [f for f in traceback.extract_stack() if "helios_core" in f.filename]
        where = frames[-1] if frames else traceback.extract_stack()[-2]
        self.waits.append(f"{what} at {where.filename.rpartition('helios_core/')[2]} {where.name}")

    def attend(self, q, k, v, *args, **kwargs):
        """In place of torch's attention."""
        self.work.attend(q, k, v)
        return fake_cuda.attention(q, k, v)

    def pin(self, t: torch.Tensor) -> torch.Tensor:
        """The tensor's memory counts as pinned."""
        storage = t.untyped_storage()
        self.pinned.add(key := storage._cdata)
        weakref.finalize(storage, self.pinned.discard, key).atexit = False
        return t

    def _copy(self, func, args, kwargs, out) -> None:
        source = args[1] if func is aten.copy_.default else args[0]
        if source.device.type == out.device.type:
            if out.device.type == "cuda":
                self.work.add(func, args, kwargs, out)
            return
        self.work.moved["host"] += out.nbytes
        goes_on = kwargs.get("non_blocking", len(args) > 2 and args[2])
        on_host = source if source.device.type == "cpu" else out
        if not (goes_on and on_host.untyped_storage()._cdata in self.pinned):
            self.wait(f"copy {source.device.type} to {out.device.type}, {list(source.shape)}")


def on_gpu(tensors) -> bool:
    return any(t.device.type == "cuda" for t in tensors)


def install(counts: Counts) -> None:
    """After fake_cuda.install: attention, pinned memory and events are counted."""
    F.scaled_dot_product_attention = counts.attend
    empty, plain = torch.empty, fake_cuda.Stub

    class Event(plain):
        def synchronize(self):
            counts.events += 1

        def query(self):
            return True

    torch.cuda.Event = Event
    torch.empty = lambda *a, pin_memory=False, **k: counts.pin(empty(*a, **k)) if pin_memory else empty(*a, **k)
    torch.Tensor.pin_memory = lambda self, device=None: counts.pin(self.clone())
    torch.Tensor.is_pinned = lambda self, device=None: self.untyped_storage()._cdata in counts.pinned
