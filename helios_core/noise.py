"""The one seeded source of randomness: numpy Philox keyed by (seed, chunk, stage, use).

Counter-based, so the same seed gives the same noise on every device and backend, and chunk k's noise does not depend
on what was drawn before it: a run can resume, or draw one chunk again. In a batch every element has a seed of its own
and draws what it would alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

MAX_SEED = 2**64 - 1
CHUNKS, STAGES = 2**24, 2**8  # that the key has bits for


@dataclass(frozen=True)
class Noise:
    """Standard normal and uniform draws for one seed (0 .. 2^64 - 1). ValueError for another seed."""

    seed: int

    def __post_init__(self):
        if not isinstance(self.seed, Integral) or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed {self.seed!r}: wanted a whole number from 0 to {MAX_SEED}")

    def normal(self, shape, *, chunk: int, stage: int = 0, use: str = "latent") -> np.ndarray:
        """Standard normal float32 of `shape`. `use` names what it is for; every use has its own stream."""
        return self._generator(chunk, stage, use).standard_normal(tuple(shape), dtype=np.float32)

    def uniform(self, shape, *, chunk: int, stage: int = 0, use: str) -> np.ndarray:
        """Uniform float32 in [0, 1) of `shape`, from the stream of that `use`."""
        return self._generator(chunk, stage, use).random(tuple(shape), dtype=np.float32)

    def _generator(self, chunk: int, stage: int, use: str) -> np.random.Generator:
        """The stream of a place. ValueError unless chunk and stage are whole numbers from 0 to 2^64 - 1."""
        for name, number in (("chunk", chunk), ("stage", stage)):
            if not isinstance(number, Integral) or not 0 <= number <= MAX_SEED:
                raise ValueError(f"noise of {name} {number!r}: wanted a whole number from 0 to {MAX_SEED}")
        (far, chunk), (deep, stage) = divmod(int(chunk), CHUNKS), divmod(int(stage), STAGES)
        place = (chunk << 40) | (stage << 32) | zlib.crc32(use.encode())
        # What the key has no bits for goes into the counter's upper half, which no draw counts up to.
        key, counter = (np.array(words, dtype=np.uint64) for words in ([self.seed, place], [0, 0, deep, far]))
        return np.random.Generator(np.random.Philox(counter=counter, key=key))


@dataclass(frozen=True)
class BatchNoise:
    """Standard normal draws for a batch, element i from seeds[i] as if it were alone."""

    seeds: tuple[int, ...]

    def __post_init__(self):
        for seed in self.seeds:
            Noise(seed)

    def normal(self, shape, *, chunk: int, stage: int = 0, use: str = "latent") -> np.ndarray:
        """As `Noise.normal`; shape[0] is the batch. ValueError for another number of seeds."""
        if shape[0] != len(self.seeds):
            raise ValueError(f"noise of shape {tuple(shape)} for {len(self.seeds)} seeds; wanted one seed per element")
        single = (1, *shape[1:])
        return np.concatenate([Noise(s).normal(single, chunk=chunk, stage=stage, use=use) for s in self.seeds])


def batch_noise(seed: int | Sequence[int], batch: int) -> BatchNoise:
    """The noise of a batch: from one seed s the elements have s, s + 1, s + 2 ... (after 2^64 - 1 comes 0).

    ValueError for another number of seeds than elements.
    """
    if isinstance(seed, Integral):
        first = Noise(seed).seed
        return BatchNoise(tuple((first + i) % (MAX_SEED + 1) for i in range(batch)))
    if len(seed) != batch:
        raise ValueError(f"{len(seed)} seeds for a batch of {batch}; wanted one seed, or one per element")
    return BatchNoise(tuple(seed))
