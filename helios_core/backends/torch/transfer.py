"""Between host and GPU without a wait: through pinned memory, with an event that says when a copy is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...devices import decoding


def send(x: Tensor, device) -> Tensor:
    """On the device; the host goes on at once."""
    device = torch.device(device)
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Arrival:
    """A copy of a tensor on its way to the host; of one number also a truth value."""

    def __init__(self, x: Tensor):
        self.tensor, self.event = x, None
        if x.device.type == "cuda":
            self.tensor = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self.tensor.copy_(x, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(x.device))

    @property
    def arrived(self) -> bool:
        """Whether it is there, so that asking does not wait."""
        return self.event is None or self.event.query()

    def wait(self) -> Tensor:
        """On the host, once it is there; what the device was given since then goes on."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensor

    def __bool__(self) -> bool:
        return bool(self.wait())


def to_pixels(frames: Tensor) -> np.ndarray:
    """Frames [b c t h w] in [-1, 1] -> uint8 [t h w c] of the first batch element. ValueError for NaN."""
    return _frames(*_leave(frames))


def stream_pixels(blocks: Iterator[Tensor]) -> Iterator[np.ndarray]:
    """The same of block after block. A GPU has begun the next one by the time that one is waited for."""
    waiting = None
    for block in blocks:
        leaving, on_gpu = _leave(block), block.device.type == "cuda"
        del block
        if waiting is not None:
            yield _frames(*waiting)
        waiting = leaving
        if not on_gpu:
            yield _frames(*waiting)
            waiting = None
    if waiting is not None:
        yield _frames(*waiting)


def _leave(frames: Tensor) -> tuple[Arrival, Arrival]:
    """(whether all is finite, uint8 pixels), both on their way."""
    finite = Arrival(torch.isfinite(frames[0].sum(dtype=torch.float32)))
    pixels = ((frames[0].float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return finite, Arrival(rearrange(pixels, "c t h w -> t h w c"))


def _frames(finite: Arrival, pixels: Arrival) -> np.ndarray:
    decoding.check_frames(bool(finite))
    return pixels.wait().cpu().numpy()
