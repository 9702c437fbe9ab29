"""Gains that give a downsampled latent the spread it is wanted to have.

"noise" multiplies by the factor: exact for white noise under exact means. "content" multiplies by nothing. "analytic"
divides by the L2 norm of the weights that each position was made with: a weighted sum of independent unit normals has
the L2 norm of its weights as its standard deviation, so white noise leaves with 1 at every position, whatever the
kernel, factor and size. "match" and its finer forms measure instead: they give each group of values the standard
deviation of the same group of a target and keep its mean. Sources: the official training code; official issue #116.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from einops import reduce

from .. import resample

POLICIES = ("noise", "content", "analytic", "match", "match_channel", "match_frame")
GROUPS = {
    "match": "b c t h w -> b 1 1 1 1",
    "match_channel": "b c t h w -> b c 1 1 1",
    "match_frame": "b c t h w -> b c t 1 1",
}
FLAT = 1e-5  # a spread below this part of the target's size is rounding, and would be blown up


class Norms:
    """The matrices of one pyramid so far, multiplied: overlapping kernels leave noise correlated, so norms do not."""

    def __init__(self, x, kernel: str):
        *_, h, w = x.shape
        self.kernel, self.precision, self.rows, self.columns = kernel, resample.precision(x), np.eye(h), np.eye(w)

    def step(self, factor: int | Fraction) -> None:
        """One level further down: the kernel's matrices for a reduction by `factor`."""
        self.rows, self.columns = (
            resample.matrix(self.kernel, len(m), Fraction(factor), self.precision) @ m
            for m in (self.rows, self.columns)
        )

    def gain(self) -> np.ndarray:
        """1 / norm of what each position was made of, [h w]."""
        norms = (np.linalg.norm(m, axis=1) for m in (self.rows, self.columns))
        return 1 / np.outer(*norms)


def moments(x, policy: str):
    """Mean and standard deviation of each group of a match policy, shaped to be multiplied with x [b c t h w]."""
    mean = reduce(x, GROUPS[policy], "mean")
    return mean, reduce((x - mean) ** 2, GROUPS[policy], "mean") ** 0.5


def match(x, target, policy: str):
    """x [b c t h w] with the target's spread in each group, and how many groups were left as they are.

    target: mean and standard deviation, from `moments`. A group without spread has nothing to stretch: it is left.
    """
    mean, std = moments(x, policy)
    ones = std * 0 + 1
    flat = ones * (std <= FLAT * (target[0] ** 2 + target[1] ** 2 + mean**2) ** 0.5)
    gain = (target[1] * (ones - flat) + flat) / (std * (ones - flat) + flat)
    return mean + (x - mean) * gain, int(flat.sum())
