"""What an autoencoder's latents bear, and whether its posterior lies where the law of the loss puts it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...training.ve import terms

NOISE = (0.05, 0.1, 0.2)
POINTS = 300  # at which the decoder is differentiated


def decibels(out: Tensor, x: Tensor) -> float:
    """PSNR of values from 0 to 1."""
    return float(-10 * torch.log10(((out - x) ** 2).mean()))


@torch.no_grad()
def quality(vae, patches: Tensor, seed: int = 0) -> dict[str, float]:
    """PSNR of means, of samples and under noise relative to each latent's spread; sigma^2, spread, SNR, bits."""
    mean, logvar = vae.encode(patches)
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    spread, sigma = mean.std(0), (0.5 * logvar).exp()
    found = {
        "psnr": decibels(vae.decode(mean), patches),
        "psnr of z": decibels(vae.decode(mean + sigma * eps), patches),
    }
    for rho in NOISE:
        found[f"psnr at {100 * rho:.0f} %"] = decibels(vae.decode(mean + rho * spread * eps), patches)
    ratio = spread**2 / (sigma**2).mean(0)
    found |= {"sigma^2": float((sigma**2).mean()), "spread": float(spread.mean())}
    return found | {"snr": float(10 * torch.log10(ratio).mean()), "bits": float(0.5 * torch.log2(1 + ratio).sum())}


def sensitivity(vae, z: Tensor) -> Tensor:
    """T [n d]: squared norms of the columns of the decoder's Jacobian at latents [n d], exact."""
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda x: vae.decode(x[None])[0]))(z.detach())
    return (jacobian.detach() ** 2).sum(1)


def law(vae, patches: Tensor, term) -> dict[str, float]:
    """log sigma against its prediction, over points and dimensions: slope, correlation, median of sigma over it."""
    with torch.no_grad():
        mean, logvar = vae.encode(patches[:: max(1, len(patches) // POINTS)][:POINTS])  # of all pictures
    wanted = terms.equilibrium(sensitivity(vae, mean), term, mean.std(0)).log().flatten().numpy()
    found = (0.5 * logvar).flatten().numpy()
    use = np.isfinite(wanted)
    slope, _ = np.polyfit(wanted[use], found[use], 1)
    correlation = np.corrcoef(wanted[use], found[use])[0, 1]
    ratio = np.exp(np.median(found[use] - wanted[use]))
    return {"slope": float(slope), "correlation": float(correlation), "ratio": float(ratio)}


def linear_decoder(seed: int, dims: int = 8, pixels: int = 40) -> Tensor:
    """Columns [d p] with squared norms from 0.02 to 200."""
    columns = torch.randn(dims, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    norms = torch.logspace(-0.85, 1.15, dims, dtype=torch.float64)
    return columns / columns.norm(dim=1, keepdim=True) * norms[:, None]


def linear_sigma(decoder: Tensor, term, *, seed: int, steps: int = 800) -> Tensor:
    """Sigma [d] by descent on the loss with sampled noise, as a training has it; the mean of the last eighth."""
    dims = len(decoder)
    generator, kept = torch.Generator().manual_seed(seed), []
    mean = torch.randn(8, dims, generator=generator, dtype=torch.float64)
    logvar = torch.full((dims,), -3.0, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logvar], 0.05)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        eps = torch.randn(64, 1, dims, generator=generator, dtype=torch.float64)
        z = mean + (0.5 * logvar).exp() * torch.cat([eps, -eps])  # in pairs: the gradient's noise is smaller
        cost = (((z - mean) @ decoder) ** 2).sum(-1).mean() + term(mean, logvar.expand_as(mean), mean)
        cost.backward()
        optimiser.step()
        optimiser.zero_grad()
        kept.append((0.5 * logvar).exp().detach())
    return torch.stack(kept[-steps // 8 :]).mean(0)


def linear_law(seed: int, weight: float = 0.1) -> float:
    """Slope of log sigma over 1/4 log(weight / T) for a linear decoder, whose T is known: 1 if the law is right."""
    decoder, term = linear_decoder(seed), terms.VarianceExpansion(weight, size_weight=0.0)
    wanted = terms.equilibrium((decoder**2).sum(1), term).log().numpy()
    return float(np.polyfit(wanted, linear_sigma(decoder, term, seed=seed).log().numpy(), 1)[0])
