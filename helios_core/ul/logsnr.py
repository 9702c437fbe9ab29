"""Noise levels as log signal-to-noise ratios, and sampling steps between them.

x_t = alpha x + sigma eps with alpha^2 + sigma^2 = 1 and logsnr = log(alpha^2 / sigma^2), written lambda in Unified
Latents (arXiv 2602.17270), 1.1. Networks answer v = alpha eps - sigma x. Levels are Python floats; arrays are of any
backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def alpha(logsnr: float) -> float:
    """Share of the signal."""
    return math.sqrt(sigmoid(logsnr))


def sigma(logsnr: float) -> float:
    """Share of the noise."""
    return math.sqrt(sigmoid(-logsnr))


def add_noise(x, noise, logsnr: float):
    """x at that level."""
    return alpha(logsnr) * x + sigma(logsnr) * noise


def clean(x, v, logsnr: float):
    """The clean x that a network's v means."""
    return alpha(logsnr) * x - sigma(logsnr) * v


def flow_time(logsnr: float) -> float:
    """s of the rectified flow x_s = (1 - s) x + s eps with that ratio: 0.0759 at 5, where UL's latents are read."""
    return 1 / (1 + math.exp(logsnr / 2))


def levels(first: float, last: float, steps: int) -> list[tuple[float, float]]:
    """Pairs (level, next level), evenly from `first` to `last`."""
    grid = [first + (last - first) * i / steps for i in range(steps + 1)]
    return list(zip(grid, grid[1:]))


def ddim(x, estimate, level: float, following: float):
    """One deterministic step: the same noise around the same clean estimate, at the next level."""
    noise = (x - alpha(level) * estimate) / sigma(level)
    return add_noise(estimate, noise, following)


def ancestral(x, estimate, level: float, following: float, noise):
    """One draw of q(x_s | x_t, estimate), s the next level (VDM, arXiv 2107.00630, appendix A.4)."""
    share = -math.expm1(level - following)
    mean = alpha(following) * ((1 - share) / alpha(level) * x + share * estimate)
    return mean + sigma(following) * math.sqrt(share) * noise


class LevelStep(NamedTuple):
    """After one step: x is at the next level, `estimate` is the clean x that the step believed in."""

    index: int
    total: int
    x: Any
    estimate: Any


def sample(
    estimate: Callable, x, pairs: list[tuple[float, float]], draw: Callable | None = None
) -> Iterator[LevelStep]:
    """Steps x through `pairs` of levels. The last x keeps the noise of the last level: UL's z_0, not a clean z.

    estimate: function of x, level and step number to the clean x. draw: function of the step number to standard
    normal noise, which makes the steps ancestral; None: DDIM.
    """
    for index, (level, following) in enumerate(pairs):
        found = estimate(x, level, index)
        if draw is None:
            x = ddim(x, found, level, following)
        else:
            x = ancestral(x, found, level, following, draw(index))
        yield LevelStep(index, len(pairs), x, found)
