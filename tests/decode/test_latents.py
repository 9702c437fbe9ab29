"""Raw latents and the model's: back and forth, of whatever library."""

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.load import array
from helios_video.helios_core.config.model import VAEConfig
from helios_video.helios_core.decode.latents import denormalise, normalise

VAE = VAEConfig(
    latents_mean=tuple(np.linspace(-1, 1, 16).tolist()), latents_std=tuple(np.linspace(0.5, 3, 16).tolist())
)
Z = np.random.default_rng(0).normal(size=(2, 16, 3, 4, 5)).astype(np.float32)


def test_channels_are_shifted_and_scaled():
    got = normalise(torch.from_numpy(Z), VAE, array)
    want = (Z - np.reshape(VAE.latents_mean, (16, 1, 1, 1))) / np.reshape(VAE.latents_std, (16, 1, 1, 1))
    assert np.allclose(got, want, atol=1e-6)
    assert torch.allclose(denormalise(got, VAE, array), torch.from_numpy(Z), atol=1e-6)


@pytest.mark.parametrize("convert", [normalise, denormalise])
def test_latents_of_another_library_are_taken(convert):
    """What a node hands over may be torch's whatever computes; a file's is numpy's."""
    want = convert(torch.from_numpy(Z), VAE, array)
    assert torch.equal(convert(Z, VAE, array), want)
    mx = pytest.importorskip("mlx.core")
    from helios_video.helios_core.backends.mlx.arrays import to_array

    to_mlx = lambda values, like=None: to_array(values)  # noqa: E731
    for z in (torch.from_numpy(Z), Z, mx.array(Z)):
        got = convert(z, VAE, to_mlx)
        assert isinstance(got, mx.array) and np.allclose(np.asarray(got), want, atol=1e-6)
    assert torch.equal(convert(mx.array(Z), VAE, array), want)
