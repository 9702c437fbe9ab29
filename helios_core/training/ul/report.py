"""What a Unified Latents codec does to pictures it was not trained on: bits, errors, variance, and a sheet of them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from einops import rearrange

from ...backends import torch as backend
from ...backends.torch.ul import UL
from ...disk import replacing
from ...measure import figures
from ...noise import batch_noise
from ...ul import DecodePlan, decode, logsnr
from . import loss
from .stages import hold_first

DRAWS = 24  # of times, evenly spread, for the bits of one sample
MANY = DecodePlan(steps=20)


@torch.no_grad()
def encode(model: UL, frames: torch.Tensor) -> torch.Tensor:
    """Frames [b 3 f h w] in [-1, 1] -> clean latents."""
    return model.encoder(hold_first(frames.to(model.like.device), model.config.hidden)).float()


@torch.no_grad()
def latent_nats(prior, z: torch.Tensor, config, *, draws: int = DRAWS, seed: int = 0) -> torch.Tensor:
    """The bound on what latents cost, nats [b]. prior: the network, or None for N(0, I)."""
    span = config.logsnr_z
    if prior is None:
        return loss.terminal(z, span[1])
    rng, total = torch.Generator().manual_seed(seed), torch.zeros(len(z), device=z.device)
    for i in range(draws):
        time = ((torch.rand(len(z), generator=rng) + i) / draws).to(z.device)
        level = loss.levels(time, span)
        noisy, v = loss.diffuse(z, torch.randn(z.shape, generator=rng).to(z.device), level)
        total += loss.rate(v, prior(noisy, level), level, span) / draws
    return total + loss.terminal(z, span[0])


@torch.no_grad()
def show(model: UL, z: torch.Tensor, plan: DecodePlan, *, seed: int = 0, noisy: bool = False) -> torch.Tensor:
    """Latents decoded whole: frames [b 3 f h w] in [-1, 1]."""
    z = z.cpu().numpy()
    parts = [d.frames for d in decode(model, z, plan, backend=backend, seed=seed, noisy=noisy) if d.frames is not None]
    return torch.cat(parts, dim=2).cpu()


def psnr(frames: torch.Tensor, wanted: torch.Tensor) -> float:
    """dB, of values in [-1, 1]."""
    return 10 * math.log10(4 / float(((frames - wanted) ** 2).mean()))


@torch.no_grad()
def measure(model: UL, frames: torch.Tensor, *, prior: bool = True) -> dict[str, float]:
    """Bits per pixel and per number of the latent, the Gaussian reference, PSNR of one and many steps, and the variance
    of many-step samples of one z_0. frames [b 3 f h w] in [-1, 1]."""
    z = encode(model, frames)
    nats = latent_nats(model.prior if prior else None, z, model.config)
    variance = rearrange(z, "b c t h w -> c (b t h w)").var(1)
    z0 = noisy_latents(model, z)
    first, second = (show(model, z0, MANY, seed=seed, noisy=True) for seed in (0, 10_000))
    return {
        "bits_per_pixel": float(loss.bits(nats, frames[0, 0].numel())),
        "bits_per_latent": float(loss.bits(nats, z[0].numel())),
        "gaussian_bits_per_latent": float(loss.gaussian_bits(variance, model.config.noise).mean()),
        "psnr": psnr(first, frames),
        "psnr_one_step": psnr(show(model, z0, DecodePlan(), noisy=True), frames),
        "decoder_variance": float(((first - second) ** 2).mean() / 2),
        "z_std": float(z.std()),
    }


def noisy_latents(model: UL, z: torch.Tensor, *, seed: int = 1) -> torch.Tensor:
    """z_0 of clean latents."""
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z.device)
    return loss.diffuse(z, noise, torch.full((len(z),), model.config.noise, device=z.device))[0]


@torch.no_grad()
def draw_latents(
    model: UL, shape: tuple[int, ...], *, steps: int = 50, seed: int = 0, ancestral: bool = True, clean: bool = False
) -> torch.Tensor:
    """Samples of the base: z_0 [b c t h w] with the noise that the decoder wants. clean: the last estimate instead,
    which the decoder never saw the like of."""
    noise = batch_noise(seed, shape[0])
    normal = lambda step: torch.from_numpy(noise.normal(shape, chunk=0, stage=step, use="ul base")).to(model.like)  # noqa: E731

    def estimate(z, level, index):
        return logsnr.clean(z, model.base(z, torch.full((shape[0],), level, device=z.device)), level)

    pairs = logsnr.levels(*model.config.logsnr_z, steps)
    *_, last = logsnr.sample(estimate, normal(0), pairs, (lambda index: normal(index + 1)) if ancestral else None)
    return last.estimate if clean else last.x


def save_sheet(rows: dict[str, torch.Tensor], file: Path, count: int = 8) -> None:
    """A PNG with a row per name of frames [b 3 f h w]: pictures side by side, or of videos frames of the first.

    ValueError where matplotlib is missing.
    """
    strips = []
    for name, frames in rows.items():
        frames = frames[:count, :, 0] if frames.shape[2] == 1 else frames[0].movedim(1, 0)
        pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()
        strips.append([figures.Strip(pixels, name, count, pixels=max(96, pixels.shape[1]))])
    with replacing(file) as part:
        figures.render(strips).save(part, "PNG")
