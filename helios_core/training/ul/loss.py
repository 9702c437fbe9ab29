"""The losses of Unified Latents (arXiv 2602.17270), in nats per sample: sums over all numbers, never means.

With v-prediction and levels linear in time, -dlambda/dt is the span of the levels, and
exp(lambda) ||z - zhat||^2 = sigmoid(lambda) ||v - vhat||^2. Two misprints are corrected: equation 4 lacks the minus
sign of equations 2 and 3, and the decoder's weight sigmoid(lambda - b) belongs on the error of x, where it replaces
exp(lambda); on the ELBO it is sigmoid(b - lambda), as the paper's figure 3 has it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WARM_UP, LEAST = 0.4, 0.02  # share of the training, and the rate's weight at its start


def times(batch: int, generator: torch.Generator, *, device=None) -> Tensor:
    """Times [b] in [0, 1), evenly spread from one draw: low variance over a batch (VDM, arXiv 2107.00630)."""
    first = torch.rand((), generator=generator)
    return ((first + torch.arange(batch) / batch) % 1).to(device)


def levels(time: Tensor, span: tuple[float, float]) -> Tensor:
    """Levels [b] at times [b]: the most signal at time 0."""
    return span[1] + (span[0] - span[1]) * time


def diffuse(x: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """x [b ...] at levels [b], and the v that a network should answer."""
    level = level.view(-1, *[1] * (x.ndim - 1))
    alpha, sigma = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
    return alpha * x + sigma * noise, alpha * noise - sigma * x


def per_sample(x: Tensor) -> Tensor:
    """[b ...] -> sums [b]."""
    return x.flatten(1).sum(1)


def rate(v: Tensor, estimate: Tensor, level: Tensor, span: tuple[float, float]) -> Tensor:
    """Equation 3 without its last term, one draw: the unweighted ELBO, whose mean is what the latent costs."""
    return 0.5 * (span[1] - span[0]) * torch.sigmoid(level) * per_sample((v - estimate) ** 2)


def terminal(z: Tensor, level: float) -> Tensor:
    """KL[p(z_1 | x) || N(0, I)] with level lambda_z(1). It keeps z from growing without bound."""
    share = torch.sigmoid(torch.tensor(level, dtype=torch.float64)).item()
    return 0.5 * per_sample(share * z**2 - share - math.log1p(-share))


def weighted(v: Tensor, estimate: Tensor, level: Tensor, span: tuple[float, float], *, bias: float) -> Tensor:
    """Equation 4: the decoder's loss, low noise discounted by sigmoid(bias - lambda). The loss factor is not in it."""
    return torch.sigmoid(bias - level) * rate(v, estimate, level, span)


def learned_variance(variance: Tensor, level: float) -> Tensor:
    """Equation 5, for an encoder that answers N(mean, variance) [b ...]: what its own noise saves."""
    return -0.5 * per_sample(torch.log1p(variance * math.exp(level)))


def warm_up(step: int, steps: int) -> float:
    """Weight of the rate: from 0.02 to 1 over the first 40 % of the steps, then exactly 1.

    Not the paper's. Small nets need it: else the rate empties the latent before the decoder has learned to read it.
    """
    return min(1.0, LEAST + (1 - LEAST) * step / (WARM_UP * steps))


def bits(nats: Tensor, count: int) -> Tensor:
    """Mean bits per pixel, or per number of the latent, of nats per sample; `count` of them are in a sample."""
    return nats.mean() / (math.log(2) * count)


def gaussian_bits(variance: Tensor, level: float) -> Tensor:
    """Bits per number of a Gaussian of that variance seen at that level: the most that any latent of it can cost."""
    return 0.5 * torch.log2(1 + variance * math.exp(level))
