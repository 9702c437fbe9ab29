"""What the model remembers: a window of past latent frames, an anchor frame, and how they are numbered.

The window holds 19 latent frames at full resolution in normalised space, split into 16 long, 2 mid and 1 short term
frames; exact zeros mean "no history". The anchor (the first frame of the first chunk, or the image of image-to-video)
stands before the short term frame. Source: the published pipelines, stage 1 settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from einops import pack

from ..disk import shown
from ..noise import batch_noise
from ..resample import like


class HistoryParts(NamedTuple):
    """The window as the transformer takes it, each [b c t h w]; frame numbers beside each part.

    control: per stage of the pyramid, tokens [1|b n d] that are added to the current ones of as many; none as a rule.
    """

    long: Any
    mid: Any
    short: Any
    long_index: tuple[int, ...]
    mid_index: tuple[int, ...]
    short_index: tuple[int, ...]
    current_index: tuple[int, ...]
    control: tuple = ()


def parse_sizes(text: str) -> tuple[int, int, int]:
    """History sizes such as "16,2,1": long, mid and short term latent frames. ValueError for anything else."""
    parts = [p for p in text.replace(" ", ",").split(",") if p]
    if len(parts) != 3 or not all(p.isdecimal() and len(p) <= 4 and int(p) >= 1 for p in parts):
        raise ValueError(
            f"history_sizes {shown(text)}: wanted three positive whole numbers up to 9999 (long, mid, short), '16,2,1'"
        )
    return tuple(int(p) for p in parts)


MOMENTS = ("moments", "first_moments", "newest_moments")


def _batch(x, count: int, axes: str):
    return None if x is None else pack([x] * count, axes)[0]


@dataclass(frozen=True, eq=False)
class History:
    """Immutable; `append` gives a new one.

    window: [b c t h w], t = sum of sizes, newest last. anchor: [b c 1 h w] or None. chunk: chunks appended so far. With
    keep_first_frame off there is no anchor, and the short term holds one frame more. skip_first_chunk: the second
    chunk's first frame takes the anchor's place, whatever it was. began: the chunk that the scene began with, 0 or the
    last that a score cut to. moments: means and variances [b c 2] that drift.py
    keeps: running, of the first chunk measured, and of the newest chunk as it was sampled; None before they are taken.
    ValueError for a window of another length than the sizes make.
    """

    window: Any
    anchor: Any = None
    sizes: tuple[int, int, int] = (16, 2, 1)
    keep_first_frame: bool = True
    chunk: int = 0
    skip_first_chunk: bool = False
    moments: Any = None
    first_moments: Any = None
    newest_moments: Any = None
    began: int = 0

    def __post_init__(self):
        wanted = self.length(self.sizes, self.keep_first_frame)
        if len(self.sizes) != 3 or min(self.sizes) < 1 or self.window.shape[2] != wanted:
            raise ValueError(
                f"history of sizes {self.sizes}: wanted three positive numbers (long, mid, short) and a window "
                f"of {wanted} latent frames; it has {self.window.shape[2]}"
            )

    @staticmethod
    def length(sizes, keep_first_frame: bool) -> int:
        """Latent frames in the window."""
        return sum(sizes) + (0 if keep_first_frame else 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, channels, height, width) of the latents it takes."""
        b, c, _, h, w = self.window.shape
        return b, c, h, w

    def parts(self, chunk_frames: int) -> HistoryParts:
        """The window split into long, mid and short, with frame numbers; chunk_frames: latent frames to come."""
        long, mid, short = self.sizes
        frames = self.window
        a = frames[:, :, :long]
        b = frames[:, :, long : long + mid]
        c = frames[:, :, long + mid :]
        if self.keep_first_frame:
            anchor = c * 0 if self.anchor is None else self.anchor
            c = pack([anchor[:, :, :1], c], "b c * h w")[0]
        first = 1 if self.keep_first_frame else 0
        ends = [first + long, first + long + mid, first + frames.shape[2]]
        near = tuple(range(ends[1], ends[2]))
        return HistoryParts(
            *(a, b, c),
            long_index=tuple(range(first, ends[0])),
            mid_index=tuple(range(ends[0], ends[1])),
            short_index=(0, *near) if self.keep_first_frame else near,
            current_index=tuple(range(ends[2], ends[2] + chunk_frames)),
        )

    def repeat(self, batch: int) -> History:
        """A batch of this history, each element to go its own way. ValueError unless it is of one element."""
        if batch == 1:
            return self
        if batch < 1 or self.shape[0] != 1:
            raise ValueError(f"batch {batch}: wanted 1 or more, of a history of one element; this has {self.shape[0]}")
        frames = {name: _batch(getattr(self, name), batch, "* c t h w") for name in ("window", "anchor")}
        return replace(self, **frames, **{name: _batch(getattr(self, name), batch, "* c k") for name in MOMENTS})

    def cut(self) -> History:
        """The history before the first chunk of a new scene: nothing is remembered, and chunks count on."""
        nothing = like(np.zeros(tuple(self.window.shape), np.float32), self.window)
        forgotten = dict.fromkeys(("anchor", *MOMENTS))
        return replace(self, window=nothing, began=self.chunk, **forgotten)

    def append(self, chunk) -> History:
        """The history after a chunk [b c t h w] of normalised latents; without an anchor, its first frame is one.

        ValueError for another shape.
        """
        b, c, t, h, w = chunk.shape
        if (b, c, h, w) != self.shape:
            raise ValueError(f"chunk of shape {tuple(chunk.shape)} does not fit a history of (b, c, h, w) {self.shape}")
        kept = self.window.shape[2]
        joined = pack([self.window, chunk], "b c * h w")[0]
        anew = self.anchor is None or (self.skip_first_chunk and self.chunk == self.began + 1)
        anchor = joined[:, :, kept : kept + 1] if self.keep_first_frame and anew else self.anchor
        return replace(self, window=joined[:, :, -kept:], anchor=anchor, chunk=self.chunk + 1, newest_moments=None)


def chunk_noise(history: History, seed: int, chunk_frames: int) -> np.ndarray:
    """White noise [b c t h w] of a history's next chunk of `chunk_frames` latent frames at full resolution."""
    b, c, h, w = history.shape
    return batch_noise(seed, b).normal((b, c, chunk_frames, h, w), chunk=history.chunk)
