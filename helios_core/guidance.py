"""Guidance as types: None for a single forward, CFG for two. A guide turns predictions into the velocity used."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance: u + scale (c - u)."""

    scale: float

    def __call__(self, conditional, unconditional):
        return unconditional + self.scale * (conditional - unconditional)


def from_scale(cfg: float) -> CFG | None:
    """No guidance at 1 or below. ValueError for a negative scale, or one that is no number."""
    if not 0 <= cfg < math.inf:
        raise ValueError(f"cfg {cfg}: wanted a number from 0; up to 1 is no guidance")
    return CFG(cfg) if cfg > 1 else None
