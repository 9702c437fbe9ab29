"""Solvers: from the latent x at sigma to sigma_next, given the network's estimate x0 of the stage's end point.

A solver is called as (x, x0, start, step) and is made anew for every stage of every chunk: DMD and Euler are plain
functions, UniPC remembers the stage's last two estimates. Source: the published schedulers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .schedule import Step

# The published floor under sigma in logarithms; the last step's sigma_next is 0.
FLOOR = 1e-8


def dmd(x, x0, start, step: Step):
    """Back to the stage's start point by sigma_next: (1 - sigma_next) x0 + sigma_next start."""
    return (1 - step.sigma_next) * x0 + step.sigma_next * start if step.sigma_next else x0


def euler(x, x0, start, step: Step):
    """A straight step along the velocity."""
    return x + (step.sigma_next - step.sigma) / step.sigma * (x - x0)


class UniPC:
    """The second order predictor and corrector, B2(h) form, in estimates of x0 (Zhao et al., arXiv 2302.04867).

    With lambda = log((1 - sigma) / sigma) a step is exact for an estimate that stays the same; predictor and corrector
    put in a mean of estimates instead. First and last steps are of first order: the stage's first has no past, and
    before sigma 0 lambda jumps.
    """

    def __init__(self):
        self.x, self.past = None, []

    def __call__(self, x, x0, start, step: Step):
        if self.past:
            x = advance(self.x, self._corrected(x0, step.sigma), self.past[-1][0], step.sigma)
        self.x, self.past = x, [*self.past[-1:], (step.sigma, x0)]
        return advance(x, self._predicted(step.sigma_next), step.sigma, step.sigma_next)

    def _predicted(self, sigma_next: float):
        """The newest estimate, continued along the line through the last two to the middle of the step."""
        sigma, m0 = self.past[-1]
        if len(self.past) == 1 or not sigma_next:
            return m0
        older, m1 = self.past[0]
        return m0 + 0.5 * lambdas(sigma, sigma_next) / lambdas(sigma, older) * (m1 - m0)

    def _corrected(self, x0, sigma_next: float):
        """The mean estimate of the step before this one, now that x0 at its end is known."""
        sigma, m0 = self.past[-1]
        if len(self.past) == 1:
            return m0 + 0.5 * (x0 - m0)
        older, m1 = self.past[0]
        h = -lambdas(sigma, sigma_next)
        r = lambdas(sigma, older) / -h
        phi1 = math.expm1(h)
        phi2 = phi1 / h - 1
        phi3 = phi2 / h - 0.5
        first, second = phi2 / phi1, 2 * phi3 / phi1
        back = (first - second) / (1 - r)
        return m0 + back / r * (m1 - m0) + (first - back) * (x0 - m0)


def lambdas(sigma: float, sigma_next: float) -> float:
    """lambda(sigma_next) - lambda(sigma)."""
    ends = [math.log(1 - s) - math.log(max(s, FLOOR)) for s in (sigma, sigma_next)]
    return ends[1] - ends[0]


def advance(x, estimate, sigma: float, sigma_next: float):
    """x at sigma_next if the estimate of x0 holds all the way from sigma."""
    gain = (sigma_next - 1) * math.expm1(-lambdas(sigma, sigma_next))
    return max(sigma_next, FLOOR) / sigma * x + gain * estimate


SOLVERS: dict[str, Callable] = {"dmd": lambda: dmd, "unipc": UniPC, "euler": lambda: euler}
