"""A small codec whose sensitivity is known, pictures for it, and a probe of it."""

from __future__ import annotations

import numpy as np
import torch
from helios_video.helios_core.backends.torch import gradient
from helios_video.helios_core.measure import probe
from torch import nn


def find(codec, clips, **settings):
    *before, last = probe.measure(codec, clips, probe.ProbeSettings(**settings))
    assert last.done == last.total and [step.done for step in before] == list(range(1, last.total + 1))
    return last.findings


def video(frames=9, size=16, seed=0):
    """Smooth moving pictures, uint8 [f h w 3]."""
    t, y, x = np.mgrid[:frames, :size, :size] / size
    waves = [np.sin(6 * x + 3 * t + k + seed) * np.cos(5 * y - 2 * t * k) for k in range(3)]
    return ((np.stack(waves, -1) + 1) * 127.5).round().astype(np.uint8)


class Small(nn.Module):
    """Latents [b 4 t h w] -> frames [b 3 t 2h 2w], curved, every latent with another reach and strength."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(
            torch.randn(12, 4, 3, 3, 3, generator=generator) * torch.logspace(-1, 1, 4)[:, None, None, None] / 9
        )

    def forward(self, z):
        x = nn.functional.conv3d(torch.tanh(z), self.mix, padding=1)
        b, _, t, h, w = x.shape
        return x.view(b, 3, 2, 2, t, h, w).permute(0, 1, 4, 5, 2, 6, 3).reshape(b, 3, t, 2 * h, 2 * w)


def small_codec(sigma=0.1):
    model = Small()

    def encode(frames):
        small = frames[:, :, :, ::2, ::2]
        mean = np.concatenate([small, small[:, :1] * 2], axis=1)
        return mean, None if sigma is None else np.full_like(mean, 2 * np.log(sigma))

    def decode(z):
        with torch.no_grad():
            return model(torch.from_numpy(z).float()).numpy()

    def pull(z, draw):
        return gradient.pull(model, torch.from_numpy(z), draw)

    return probe.Codec(encode, decode, pull, 1, 2), model
