"""What the experiments on Variance Expansion train: a small autoencoder, and a flow on its latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..loop import Recipe, fit
from . import terms

LATENTS, WIDTH, BATCH = 16, 256, 256


def mlp(*dims: int) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them."""
    layers = [layer for i, o in zip(dims, dims[1:]) for layer in (nn.Linear(i, o), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


class PatchVAE(nn.Module):
    """Patches [n p], values 0 to 1, through `latents` numbers."""

    def __init__(self, pixels: int, latents: int = LATENTS):
        super().__init__()
        self.latents = latents
        self.encoder = mlp(pixels, WIDTH, WIDTH, 2 * latents)
        self.decoder = mlp(latents, WIDTH, WIDTH, pixels)
        with torch.no_grad():
            self.encoder[-1].bias[latents:] -= 4  # noise from which a picture can be learned

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [n d]."""
        mean, logvar = self.encoder(x - 0.5).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Latents [n d] -> patches [n p]."""
        return self.decoder(z) + 0.5


def recipe(steps: int) -> Recipe:
    """How every network of the experiments is trained; one checkpoint, at the end."""
    return Recipe(
        steps=steps, lr=2e-3, warmup=min(100, steps // 4 + 1), weight_decay=0.0, ema=0.99, save_every=max(1, steps),
        log_every=max(1, steps // 20),
    )  # fmt: skip


def train_vae(patches: Tensor, term, file: Path, *, steps: int, seed: int, latents: int = LATENTS) -> PatchVAE:
    """Reconstruction is the sum of squared errors over a patch. What `file` finished is not trained again."""
    torch.manual_seed(seed)
    model = PatchVAE(patches.shape[1], latents)

    def loss(step: int) -> dict:
        rng = np.random.default_rng((seed, step))
        x = patches[rng.integers(0, len(patches), BATCH)]
        mean, logvar = model.encode(x)
        z = mean + (0.5 * logvar).exp() * torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
        rebuilt = terms.reconstruction(model.decode(z), x)
        return {"loss": rebuilt + term(mean, logvar, z), "rebuilt": rebuilt, "log_variance": logvar.mean()}

    return fit(model, loss, recipe(steps), file).train(False)


class Flow(nn.Module):
    """Velocity noise - data of latents [n d] at time t [n 1], 1 is noise; latents of unit spread."""

    def __init__(self, latents: int = LATENTS):
        super().__init__()
        self.layers = mlp(latents + 9, WIDTH, WIDTH, WIDTH, latents)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[n d], [n 1] -> velocity [n d]."""
        waves = [f(2**k * torch.pi * t) for k in range(4) for f in (torch.sin, torch.cos)]
        return self.layers(torch.cat([x, t, *waves], dim=1))


def train_flow(vae: PatchVAE, patches: Tensor, file: Path, *, steps: int, seed: int) -> Flow:
    """Flow matching on posterior samples over the means' spread, as a latent diffusion model has them."""
    torch.manual_seed(seed)
    model = Flow(vae.latents)
    with torch.no_grad():
        mean, logvar = vae.encode(patches)
    centre, spread = mean.mean(0), mean.std(0)

    def loss(step: int) -> dict:
        rng = np.random.default_rng((seed, step, 1))
        pick = rng.integers(0, len(patches), BATCH)
        eps, noise = torch.from_numpy(rng.standard_normal((2, BATCH, vae.latents), dtype=np.float32))
        data = (mean[pick] + (0.5 * logvar[pick]).exp() * eps - centre) / spread
        t = torch.from_numpy(rng.random((BATCH, 1), dtype=np.float32))
        return {"loss": ((model((1 - t) * data + t * noise, t) - (noise - data)) ** 2).mean()}

    return fit(model, loss, recipe(steps), file).train(False)


@torch.inference_mode()
def sample(flow: Flow, vae: PatchVAE, patches: Tensor, *, count: int, steps: int, seed: int) -> Tensor:
    """Patches [count p] decoded from `steps` Euler steps; patches: those trained on, for the latents' spread."""
    mean, _ = vae.encode(patches)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, vae.latents, generator=generator)
    for i in range(steps):
        t = torch.full((count, 1), 1 - i / steps)
        x = x - flow(x, t) / steps
    return vae.decode(x * mean.std(0) + mean.mean(0))
