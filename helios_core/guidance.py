"""Guidance as types: None for a single forward, CFG for two. A guide turns predictions into the velocity used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance: u + scale (c - u)."""

    scale: float

    def __call__(self, conditional, unconditional):
        return unconditional + self.scale * (conditional - unconditional)


def from_scale(cfg: float) -> CFG | None:
    """No guidance at 1 or below."""
    return CFG(cfg) if cfg > 1 else None
