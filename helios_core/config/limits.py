"""Bounds of what may be asked for: far above anything of use, and below what hangs a machine or breaks a library."""

from __future__ import annotations

import math

SIDE = 16384  # pixels: the most that H.264 has
FRAMES = 1_000_000  # of a video: eleven hours
STEPS = 1000  # of a pyramid's stage: as many as a schedule has timesteps
SCALE = 100.0  # of guidance
CHUNKS = 100_000
LAYERS = 1000
WIDTH = 1_000_000  # channels, words, and what else counts in a model's configuration


def check_whole(name: str, value: int, most: int, *, least: int = 1) -> int:
    """The number. ValueError, which names it, outside least to most."""
    if not least <= value <= most:
        got = value if abs(value) < 10**18 else f"{float(value):.0e}" if abs(value) < 10**300 else "far more"
        raise ValueError(f"{name} must be at least {least}{_most(value, most)}, got {got}")
    return value


def check_number(name: str, value: float, most: float, *, least: float = 0.0) -> float:
    """The same for a number with a fraction; NaN is none. ValueError too."""
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{name} must be at least {least:g}{_most(value, most)}, got {value:g}")
    return value


def _most(value, most) -> str:
    """Told only where it is what the number broke."""
    return f" and at most {int(most)}" if not value <= most else ""
