"""Drawn videos of helios-tiny's vocabulary, as `ul_data.Crops` gives those of a folder."""

from __future__ import annotations

import numpy as np
import torch

from . import shapes, tiny_vae
from .ul_data import to_frames


class Drawn:
    """uint8 [t h w 3] squares of `size` pixels and `frames` frames. ValueError for more pixels than drawings have."""

    def __init__(self, *, size: int, frames: int = 1):
        if size > shapes.SIZE:
            raise ValueError(f"--size {size}: drawn videos have {shapes.SIZE} pixels to a side")
        self.size, self.frames = size, frames

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One crop of one scene."""
        y, x = rng.integers(0, shapes.SIZE - self.size + 1, 2)
        return tiny_vae.sample_clip(rng, self.frames)[:, y : y + self.size, x : x + self.size]

    def batch(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """float32 [b 3 t h w] in [-1, 1]."""
        return to_frames(np.stack([self.draw(rng) for _ in range(count)]))
