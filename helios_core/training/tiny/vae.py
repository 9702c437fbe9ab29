"""Trains helios-tiny's VAE: the Wan architecture, small, on drawn videos.

Loss: mean squared error of the frames plus a light KL term, so that the latents are compact and smooth enough to
sample. (The mean absolute error stalls: the median of a small shape on a large background is the background.) Single
frames first, then clips. Afterwards the mean and standard deviation of each latent channel are measured for the config.

The RMS norms of this architecture keep a pixel's direction in channel space and forget its length, so the first
convolutions get biases to point away from. When the latents are settled, the encoder is frozen and the decoder goes on
alone (`polish`), beside the training of the transformer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import nn

from ...backends.torch.vae import WanVAE
from ...config import VAEConfig
from ...drawn import SIZE, draw, draw_varied, random_scene
from ..loop import Recipe, fit

VAE_CONFIG = VAEConfig(base_dim=16, num_res_blocks=1)
KL_WEIGHT = 3e-5
IMAGES = 8  # per step at first
CROPS = 8  # half the height and width; every fourth step a quarter as many whole clips
FRAMES = 9
IMAGE_STEPS = 300


def to_video(frames: np.ndarray) -> torch.Tensor:
    """uint8 [b t h w c] -> float32 [b c t h w] in [-1, 1]."""
    return rearrange(torch.from_numpy(frames).float() / 127.5 - 1, "b t h w c -> b c t h w").contiguous()


def encode(vae: WanVAE, frames: np.ndarray) -> torch.Tensor:
    """uint8 [b t h w c] -> raw latents [b c t h w], the posterior's means, on the CPU."""
    return vae.encode(to_video(frames).to(next(vae.parameters()).device))[0].cpu()


def sample_clip(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Mostly from the vocabulary, the rest with free colours, speeds and numbers of shapes."""
    if rng.random() < 0.92:
        return draw(random_scene(rng), frames)
    return draw_varied(rng, frames)


def sample_batch(rng: np.random.Generator, *, images: bool, crop: bool) -> np.ndarray:
    """uint8 [b t h w c]: crops show more different scenes for the same work, whole frames teach the borders."""
    if images or not crop:
        return np.stack([sample_clip(rng, 1 if images else FRAMES) for _ in range(IMAGES if images else CROPS // 4)])
    half = SIZE // 2
    corners = rng.integers(0, half, (CROPS, 2))
    return np.stack([sample_clip(rng, FRAMES)[:, y : y + half, x : x + half] for y, x in corners])


@torch.no_grad()
def initialise(vae: WanVAE) -> None:
    """Starts as a nearly linear codec: orthogonal centre taps, resampling by means, silent residual branches.

    From here colours and places pass on the first step; from the usual random weights they take hundreds.
    """
    for conv in (m for m in vae.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))):
        weight = conv.weight
        out_dim, in_dim = weight.shape[:2]
        nn.init.normal_(weight, 0, 0.5 * weight[0].numel() ** -0.5)
        nn.init.zeros_(conv.bias)
        turn = nn.init.orthogonal_(torch.empty(out_dim, in_dim)) * 0.87 * max(1.0, out_dim / in_dim) ** 0.5
        if weight.ndim == 4 and conv.stride[0] == 2:
            weight[:, :, :2, :2] += turn[:, :, None, None] * 0.325
        elif weight.ndim == 4:
            weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += turn
        elif weight.shape[2] == 3 and weight.shape[3] == 1:
            taps = slice(1, 3) if conv.stride[0] == 2 else slice(2, 3)
            copies = torch.eye(in_dim).repeat(out_dim // in_dim, 1)
            weight[:, :, taps] += copies[:, :, None, None, None] / (taps.stop - taps.start)
        else:
            weight[:, :, -1, weight.shape[3] // 2, weight.shape[4] // 2] += turn
    for module in vae.modules():
        if hasattr(module, "conv2"):
            nn.init.zeros_(module.conv2.weight)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        nn.init.normal_(conv.bias, 0, 0.3)
    vae.quant_conv.weight[VAE_CONFIG.z_dim :].mul_(0.1)
    vae.quant_conv.bias[VAE_CONFIG.z_dim :].fill_(-6.0)


def train(folder: Path, *, steps: int, device="cpu") -> WanVAE:
    """A trained VAE; checkpoints in `folder`."""
    torch.manual_seed(0)
    vae = WanVAE(VAE_CONFIG)
    initialise(vae)
    recipe = Recipe(steps=steps, lr=1e-3, warmup=20, ema=0.99, weight_decay=0.0)
    return fit(vae.to(device), reconstruction(vae, device), recipe, folder / "vae.pt").train(False)


def polish(vae: WanVAE, folder: Path, *, steps: int, device="cpu") -> WanVAE:
    """Trains the decoder on, with the encoder, and so the latents, fixed."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    recipe = Recipe(steps=steps, lr=7e-4, warmup=20, ema=0.995, weight_decay=0.0)
    loss = reconstruction(vae, device, first=IMAGE_STEPS)
    return fit(vae.to(device), loss, recipe, folder / "vae_polish.pt").train(False)


def reconstruction(vae: WanVAE, device, *, first: int = 0):
    """The loss of a step, counted from `first`, as `fit` takes it."""
    generator = torch.Generator(device=device).manual_seed(1)

    def loss(step: int) -> dict:
        step += first
        rng = np.random.default_rng((step, 1))
        video = to_video(sample_batch(rng, images=step < IMAGE_STEPS, crop=step % 4 != 3)).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            mean, logvar = vae.encode(video)
            noise = torch.randn(mean.shape, generator=generator, device=device)
            out = vae.decode(mean + (0.5 * logvar).exp() * noise, clamp=False)
        mean, logvar = mean.float(), logvar.float()
        mse = ((out.float() - video) ** 2).mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        return {"loss": mse + KL_WEIGHT * kl, "mse": mse, "kl": kl}

    return loss


@torch.no_grad()
def measure_latents(vae: WanVAE, *, clips: int = 64) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each raw latent channel over scenes of the vocabulary."""
    rng = np.random.default_rng(2)
    scenes = np.stack([draw(random_scene(rng), 33) for _ in range(clips)])
    z = torch.cat([encode(vae, part) for part in np.array_split(scenes, clips // 4)])
    flat = rearrange(z, "b c t h w -> c (b t h w)").float()
    return tuple(flat.mean(1).tolist()), tuple(flat.std(1).tolist())
