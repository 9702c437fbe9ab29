"""HeliosNoise and PyramidDownsample are what the sampler does itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_video.helios_core.checkpoint import Checkpoint
from helios_video.helios_core.devices import Choices, Host, Parts
from helios_video.helios_core.pipeline import Helios
from helios_video.helios_core.pyramid.levels import downsample
from support.nodes import call, make_history


def test_noise_is_white_seeded_and_of_its_chunk(fake_helios):
    memory = make_history(fake_helios)
    noise = call("HeliosNoise", history=memory, seed=3)[0]["samples"]
    assert noise.shape == (1, 16, 9, 16, 8) and noise.dtype == torch.float32
    assert abs(float(noise.std()) - 1) < 0.02
    assert torch.equal(noise, call("HeliosNoise", history=memory, seed=3)[0]["samples"])
    assert not torch.equal(noise, call("HeliosNoise", history=memory, seed=4)[0]["samples"])
    later = memory.append(torch.zeros(1, 16, 9, 16, 8))
    assert not torch.equal(noise, call("HeliosNoise", history=later, seed=3)[0]["samples"])


def test_noise_and_downsampling_are_what_the_sampler_draws_itself(fake_helios):
    checkpoint = Checkpoint(Path("."), fake_helios.config, {})
    helios = Helios(checkpoint, Parts(checkpoint, "torch", Choices(), Host()), None)  # no weights needed
    memory = make_history(helios).append(torch.zeros(1, 16, 9, 16, 8))
    noise = call("HeliosNoise", history=memory, seed=3)[0]
    assert torch.equal(noise["samples"], helios.noise(memory.history, 3))
    small = call("PyramidDownsample", latent=noise)[0]["samples"]
    assert torch.equal(small, downsample(helios.noise(memory.history, 3), (2, 2)))
    assert tuple(small.shape) == helios.coarsest(memory.history)


def test_downsampling_keeps_noise_white_and_reports_it():
    noise = torch.randn(1, 16, 9, 32, 32, generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    small, report, _ = call("PyramidDownsample", latent={"samples": noise, "kept": 1})
    assert small["samples"].shape == (1, 16, 9, 8, 8) and small["kept"] == 1
    assert abs(float(small["samples"].std()) - 1) < 0.05
    assert [line.split(":")[0] for line in report.splitlines()] == ["32x32", "16x16", "8x8"]
    plain, *_ = call("PyramidDownsample", latent={"samples": noise}, variance_policy="content")
    assert torch.allclose(plain["samples"] * 4, small["samples"], atol=1e-6)
    assert torch.equal(noise, before)


def test_downsampling_refuses_what_it_cannot_do():
    latent = {"samples": torch.zeros(1, 16, 9, 30, 32)}
    with pytest.raises(ValueError, match="height 28 or 32"):
        call("PyramidDownsample", latent=latent)
    with pytest.raises(ValueError, match="factors 'two'"):
        call("PyramidDownsample", latent=latent, factors="two")
    with pytest.raises(ValueError, match="takes no reference"):
        call("PyramidDownsample", latent=latent, reference=latent)
    with pytest.raises(ValueError, match="wanted a video latent"):
        call("PyramidDownsample", latent={"samples": torch.zeros(1, 4, 8, 8)})
