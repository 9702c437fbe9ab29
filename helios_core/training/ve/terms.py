"""The Variance Expansion loss (arXiv 2603.21085): latents of an autoencoder that survive a sampler's noise.

Reconstruction alone drives the posterior's sigma to zero, for its cost grows with sigma^2 T, where T_j is the squared
norm of the decoder's derivative by latent j. The loss adds weight / (sigma^2 + delta), and the two meet at

    sigma_j = (weight / T_j)^(1/4)                                                     (equation 14, per dimension)

All terms are sums over latent dimensions and means over the batch, and belong to a reconstruction that is a sum of
squared errors over pixels: with means instead, weight and T would change with the size of the picture.

Unusual here: far from where a term is meant to work it goes on as its tangent, instead of being clamped. A clamp has
no gradient, so a posterior that starts beyond it (a collapsed VAE has log sigma^2 = -18) would stay there for good;
a tangent has the gradient of the place where it begins, which is finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

LOGVAR_FLOOR = -18.0  # below, the inverse variance is its tangent
SIZE_CEILING = 20.0  # of |z| - tau; above, the exponential is its tangent
DELTA = 1e-4  # bounds the gradient by 1 / (4 delta) in log sigma^2: for fine-tuning, see `VarianceExpansion`


def total(x: Tensor) -> Tensor:
    """Sum over all but the batch, mean over the batch."""
    return x.flatten(1).sum(1).mean()


def inverse_variance(logvar: Tensor, delta: float = 0.0) -> Tensor:
    """1 / (sigma^2 + delta) per dimension of log sigma^2; its tangent below LOGVAR_FLOOR."""
    var = logvar.clamp_min(LOGVAR_FLOOR).exp()
    slope = -math.exp(LOGVAR_FLOOR) / (math.exp(LOGVAR_FLOOR) + delta) ** 2
    return 1 / (var + delta) + slope * (logvar - LOGVAR_FLOOR).clamp_max(0)


def scale_free(mean: Tensor, logvar: Tensor, delta: float = 0.0) -> Tensor:
    """`inverse_variance` of sigma over the spread of its channel, per dimension: latents [b c ...] of any scale.

    Closes a loophole: mean and sigma times s with a decoder that divides by s reconstruct the same, and the plain term
    falls by s^2. The spread is the batch's, with its gradient: without it the means would grow against the noise, the
    spread with them, and nothing would hold the scale.
    """
    axes = [i for i in range(mean.ndim) if i != 1]
    spread = mean.var(axes, keepdim=True).clamp_min(1e-12)
    return inverse_variance(logvar - spread.log(), delta)


def log_variance(logvar: Tensor) -> Tensor:
    """-log sigma^2 per dimension: the alternative with sigma^2 = weight / T, too weak near zero."""
    return -logvar


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, sigma^2) || N(0, 1)) per dimension, in nats."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


def size(z: Tensor, tau: float = 1.0) -> Tensor:
    """exp(|z| - tau) per dimension: keeps latents from growing, since no KL term does. tau only scales it."""
    excess = z.abs() - tau
    low = excess.clamp_max(SIZE_CEILING).exp()
    return low + math.exp(SIZE_CEILING) * (excess - SIZE_CEILING).clamp_min(0)


@dataclass(frozen=True)
class VarianceExpansion:
    """What is added to the sum of squared errors. weight, size_weight, tau: the paper's lambda_1, lambda_2 and tau.

    delta: 0 from scratch. From a collapsed VAE it bounds what one dimension can pull, so that gradient clipping, which
    is by the norm of all gradients, leaves the others something; keep it well below sqrt(weight / T).
    """

    weight: float = 0.1
    size_weight: float = 1e-6
    tau: float = 1.0
    delta: float = 0.0
    free_of_scale: bool = False

    def __call__(self, mean: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        """Posterior's mean and log variance and its sample, each [b c ...] -> scalar."""
        found = scale_free(mean, logvar, self.delta) if self.free_of_scale else inverse_variance(logvar, self.delta)
        return self.weight * total(found) + self.size_weight * total(size(z, self.tau))


@dataclass(frozen=True)
class KL:
    """The usual VAE's term, for comparison."""

    weight: float = 1e-6

    def __call__(self, mean: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return self.weight * total(kl(mean, logvar))


@dataclass(frozen=True)
class LogVariance:
    """The milder alternative, for comparison."""

    weight: float = 0.1
    size_weight: float = 1e-6
    tau: float = 1.0

    def __call__(self, mean: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return self.weight * total(log_variance(logvar)) + self.size_weight * total(size(z, self.tau))


def reconstruction(out: Tensor, target: Tensor) -> Tensor:
    """Sum of squared errors over the pixels of a picture, mean over the batch."""
    return total((out - target) ** 2)


def equilibrium(sensitivity, term, spread=1.0):
    """The sigma at which a term and the noise's cost sigma^2 T meet, per dimension; exact for a linear decoder.

    sensitivity: T, a number, array or tensor above 0. spread: standard deviation of the channel, which only the
    scale-free term asks for. 0 where delta is so large that the term loses.
    """
    if isinstance(term, KL):
        return (term.weight / (2 * sensitivity + term.weight)) ** 0.5
    if isinstance(term, LogVariance):
        return (term.weight / sensitivity) ** 0.5
    unit = spread**2 if term.free_of_scale else 1.0
    squared = unit * (term.weight / (unit * sensitivity)) ** 0.5 - unit * term.delta
    return (squared * (squared > 0)) ** 0.5
