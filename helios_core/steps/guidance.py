"""Guidance as types: None for a single forward, CFG or CFGZero for two. A guide turns predictions into the velocity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange, reduce

from ..config import GUIDANCE, limits


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance: u + scale (c - u)."""

    scale: float
    zero_steps: ClassVar[int] = 0

    def __call__(self, conditional, unconditional):
        return unconditional + self.scale * (conditional - unconditional)


@dataclass(frozen=True)
class CFGZero:
    """CFG-Zero* (Fan et al., arXiv 2503.18886): s u + scale (c - s u), with s u the projection of c on u per sample.

    zero_steps: how many first steps of stage 0 have velocity zero, and need no forward. The published pipelines count
    from 0 up to and including their zero_steps: their 1 is 2 here. ValueError below 0.
    """

    scale: float
    zero_steps: int = 2

    def __post_init__(self):
        if self.zero_steps < 0:
            raise ValueError(f"zero_steps {self.zero_steps}: wanted a number of steps from 0")

    def __call__(self, conditional, unconditional):
        unconditional = unconditional * projection(conditional, unconditional)
        return unconditional + self.scale * (conditional - unconditional)


def projection(c, u):
    """<c, u> / (|u|^2 + 1e-8) of each sample: float32 [b c t h w], twice -> [b 1 1 1 1]."""
    c, u = (rearrange(x, "b c t h w -> b (c t h w)") for x in (c, u))
    scale = reduce(c * u, "b n -> b 1", "sum") / (reduce(u * u, "b n -> b 1", "sum") + 1e-8)
    return rearrange(scale, "b 1 -> b 1 1 1 1")


def from_scale(cfg: float, kind: str = GUIDANCE[0], zero_steps: int = 2) -> CFG | CFGZero | None:
    """No guidance at 1 or below. ValueError for a negative scale or one that is no number, and for an unknown kind."""
    if not 0 <= cfg < math.inf:
        raise ValueError(f"cfg {cfg}: wanted a number from 0; up to 1 is no guidance")
    if cfg > limits.SCALE:
        raise ValueError(f"cfg {cfg:g}: wanted a number up to {limits.SCALE:g}; above 10 pictures break as a rule")
    if kind not in GUIDANCE:
        raise ValueError(f"guidance {kind!r}: wanted one of {', '.join(GUIDANCE)}")
    if cfg <= 1:
        return None
    return CFG(cfg) if kind == GUIDANCE[0] else CFGZero(cfg, zero_steps)
