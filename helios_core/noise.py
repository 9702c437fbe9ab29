"""The one seeded source of randomness: numpy Philox keyed by (seed, chunk, stage, use).

Counter-based, so the same seed gives the same noise on every device and backend, and chunk k's noise does not depend
on what was drawn before it: a run can resume, or draw one chunk again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from numbers import Integral

import numpy as np

MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Noise:
    """Standard normal draws for one seed (0 .. 2^64 - 1)."""

    seed: int

    def __post_init__(self):
        if not isinstance(self.seed, Integral) or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed {self.seed!r}: wanted a whole number from 0 to {MAX_SEED}")

    def normal(self, shape, *, chunk: int, stage: int = 0, use: str = "latent") -> np.ndarray:
        """Standard normal float32 of `shape`. `use` names what it is for; every use has its own stream."""
        place = (int(chunk) << 40) | (int(stage) << 32) | zlib.crc32(use.encode())
        bits = np.random.Philox(key=np.array([self.seed, place], dtype=np.uint64))
        return np.random.Generator(bits).standard_normal(tuple(shape), dtype=np.float32)
