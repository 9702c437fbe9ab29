"""What `--data` names: a folder of images or videos, or pictures that need none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..drawn import SIZE
from .crops import Crops, to_frames
from .photos import TrainingCrops
from .tiny import sample_clip


def open_data(data: Path, *, size: int, frames: int = 1) -> Crops | Drawn:
    """Crops of that many pixels and frames. ValueError if there is nothing of the kind."""
    if str(data) == "drawn":
        return Drawn(size=size, frames=frames)
    if str(data) != "photos":
        return Crops.below(data, size=size, frames=frames)
    if frames > 1:
        raise ValueError(f"--data photos are still pictures; wanted --frames 1, not {frames}")
    return TrainingCrops(size)


class Drawn:
    """uint8 [t h w 3] squares of `size` pixels and `frames` frames. ValueError for more pixels than drawings have."""

    def __init__(self, *, size: int, frames: int = 1):
        if size > SIZE:
            raise ValueError(f"--size {size}: drawn videos have {SIZE} pixels to a side")
        self.size, self.frames = size, frames

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One crop of one scene."""
        y, x = rng.integers(0, SIZE - self.size + 1, 2)
        return sample_clip(rng, self.frames)[:, y : y + self.size, x : x + self.size]

    def batch(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """float32 [b 3 t h w] in [-1, 1]."""
        return to_frames(np.stack([self.draw(rng) for _ in range(count)]))
