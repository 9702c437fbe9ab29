"""Unified Latents in small: a model of pictures, one of videos, random weights, inputs."""

from __future__ import annotations

import numpy as np
import torch
from helios_video.helios_core.backends.torch.ul import UL
from helios_video.helios_core.ul.config import ULConfig

SMALL = {
    "encoder_channels": (8, 12, 16), "encoder_blocks": (1, 1, 1), "decoder_channels": (8, 12, 16),
    "decoder_blocks": (1, 1, 2), "prior_channels": (16,), "prior_blocks": (2,), "base_channels": (16, 32),
    "base_blocks": (3, 2), "head_dim": 8, "dropout": 0.0,
}  # fmt: skip
VIDEO = ULConfig(latent_channels=4, stride=(4, 8), causal=True, window=2, with_pixels=True, **SMALL)
IMAGE = ULConfig(latent_channels=4, stride=(1, 8), **SMALL)
TRAINED = {**SMALL, "logsnr_x": (-6.0, 8.0), "dropout": 0.1}  # sizes to train


def build(config, parts=("encoder", "prior", "decoder", "base"), seed=0) -> UL:
    """Random weights everywhere, so that every path counts."""
    torch.manual_seed(seed)
    model = UL(config, parts).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0, 0.3 if parameter.ndim == 1 else 0.7 * parameter[0].numel() ** -0.5)
    return model


def inputs(config, t=3, h=6, w=4, b=2):
    """Noisy frames, noisy latents, two levels per sample, another decoder's frames."""
    f, s = t * config.stride[0], config.stride[1]
    x, pixels = torch.randn(2, b, 3, f, s * h, s * w)
    z = torch.randn(b, config.latent_channels, t, h, w)
    return x, z, torch.tensor([-2.0, 3.0]), torch.tensor([5.0, 1.0]), pixels


class Colours:
    """Frames of one colour each, as a data set."""

    def batch(self, rng, count):
        return torch.from_numpy(rng.uniform(-1, 1, (count, 3, 1, 1, 1)).astype(np.float32)).expand(-1, -1, 1, 16, 16)


def random_pair():
    """Clean values, noise, a guess of v, and a level for each sample."""
    rng = torch.Generator().manual_seed(0)
    x, noise, guess = torch.randn(3, 4, 5, 2, 3, generator=rng, dtype=torch.float64)
    return x, noise, guess, torch.tensor([-9.0, -1.0, 3.0, 7.5], dtype=torch.float64)
