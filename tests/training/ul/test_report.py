"""Figures of a codec: bits, samples of its base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.training.ul import report, stages
from support.ul import IMAGE, Colours, build


def test_bits_of_many_draws_are_the_training_s_in_the_mean():
    model = build(IMAGE)
    z = torch.randn(2, 4, 1, 4, 4) * 0.5
    several = torch.stack([report.latent_nats(model.prior, z, IMAGE, draws=20, seed=i) for i in range(8)])
    single = torch.stack([stages.rate_terms(model, z, stages.StepDraws(i), "diffusion")[0] for i in range(800)])
    error = 4 * float(single.mean(1).std()) / 800**0.5 + 4 * float(several.mean(1).std()) / 8**0.5
    assert float(several.mean()) == pytest.approx(float(single.mean()), abs=error)
    assert several.std(0).max() < single.std(0).min() / 3


def test_base_samples_carry_the_noise_of_z0():
    """A base that answers for a single point: what it samples is that point, seen at lambda 5."""
    model = build(IMAGE)
    point = torch.randn(1, 4, 1, 4, 4)
    model.base.forward = lambda z, at: (torch.sigmoid(at[0]).sqrt() * z - point) / torch.sigmoid(-at[0]).sqrt()
    for ancestral in (True, False):
        z = report.draw_latents(model, (64, 4, 1, 4, 4), steps=20, ancestral=ancestral)
        spread = (z - torch.sigmoid(torch.tensor(5.0)).sqrt() * point).std()
        assert float(spread) == pytest.approx(0.0818, rel=0.1), ancestral


def test_figures_of_a_codec():
    figures = report.measure(build(IMAGE), Colours().batch(np.random.default_rng(1), 2).contiguous())
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["decoder_variance"] > 0
    assert figures["bits_per_latent"] == pytest.approx(16 * figures["bits_per_pixel"])
