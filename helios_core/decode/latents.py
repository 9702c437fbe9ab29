"""Raw VAE latents and the space the model works in: (raw - mean) / std per channel, as the VAE's config says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import VAEConfig


def normalise(z, vae: VAEConfig, array: Callable):
    """Raw latents [b c t h w] of any library -> the model's space. array(values, like): the backend's, beside it."""
    z = array(z)
    return (z - _stat(vae.latents_mean, z, array)) / _stat(vae.latents_std, z, array)


def denormalise(z, vae: VAEConfig, array: Callable):
    """The model's latents [b c t h w] of any library -> raw VAE space."""
    z = array(z)
    return z * _stat(vae.latents_std, z, array) + _stat(vae.latents_mean, z, array)


def _stat(values, like, array: Callable):
    return array(np.array(values, dtype=np.float32).reshape(1, -1, 1, 1, 1), like)
