"""Statistics of latents, side by side."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core.measure import latent_plot


def white(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_spectrum_of_white_noise_is_flat_at_its_variance():
    frequencies, power = latent_plot.spectrum(3 * white(1, 4, 16, 64, 48))
    assert power.shape == (4, len(frequencies)) and frequencies[-1] == 0.5
    assert power.mean() == pytest.approx(9, rel=0.02) and abs(power.mean(axis=0) / 9 - 1).max() < 0.15


def test_the_spectrum_finds_a_wave_and_no_mean():
    wave = np.cos(2 * np.pi * np.arange(64) / 8)[None].repeat(64, 0)[None, None, None] + 100
    frequencies, power = latent_plot.spectrum(wave)
    assert frequencies[power[0].argmax()] == 1 / 8
    assert power[0].sum() - power[0].max() < 1e-9 * power[0].max()
    assert np.isnan(latent_plot.spectrum(white(1, 2, 3, 1, 1))[1]).all()


def test_a_histogram_is_a_density():
    edges = np.linspace(-6, 6, 49)
    density = latent_plot.histogram(white(1, 16, 4, 64, 64), edges)
    middles = (edges[1:] + edges[:-1]) / 2
    assert (density * np.diff(edges)).sum() == pytest.approx(1)
    assert abs(density - np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi)).max() < 0.01
