"""The two stages of Unified Latents' training: gradients, terms, what the encoder feels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.ul import UL
from helios_video.helios_core.training.ul import presets, stages
from helios_video.helios_core.ul.config import ULConfig
from support.ul import IMAGE, TRAINED, VIDEO, Colours, build


def start(config, parts=("encoder", "prior", "decoder")):
    torch.manual_seed(0)
    model = UL(config, parts)
    stages.initialise(model)
    return model


def test_an_untrained_model_answers_zero_and_passes_what_it_is_given():
    model = start(VIDEO)
    x = torch.randn(1, 3, 8, 16, 16)
    z, level = model.encoder(x), torch.zeros(1)
    assert not model.prior(z, level).any() and not model.decoder(x, z, level, level).any()
    assert z.std() > 0.1


@pytest.mark.parametrize("config", [IMAGE, VIDEO], ids=["image", "video"])
def test_gradients_reach_every_part(config):
    model = build(config, ("encoder", "prior", "decoder")).train().requires_grad_(True)
    data = Colours() if config is IMAGE else Moving()
    stages.stage_one(model, data, stages.Terms(), 10, 4)(9)["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


class Moving:
    def batch(self, rng, count):
        return torch.from_numpy(rng.uniform(-1, 1, (count, 3, 5, 16, 16)).astype(np.float32))


def encoder_pull(prior, even=0.0):
    """The encoder's gradient from the rate alone."""
    model = build(IMAGE).requires_grad_(True)
    terms = stages.Terms(loss_factor=0.0, even=even, prior=prior)
    values = stages.stage_one(model, Colours(), terms, 10, 4)(9)
    values["loss"].backward()
    return float(model.encoder.conv_out.weight.grad.norm()), float(values["bits_per_pixel"].detach())


def test_the_prior_shapes_the_encoder_unless_it_is_detached():
    (whole, bits), (cut, same) = encoder_pull("diffusion"), encoder_pull("detached")
    assert whole > 20 * cut > 0 and bits == pytest.approx(same)


def test_the_even_loss_leaves_the_encoder_alone():
    assert encoder_pull("diffusion", even=0.1)[0] == pytest.approx(encoder_pull("diffusion")[0])


def test_a_normal_prior_costs_the_divergence_of_z0():
    model, draws = build(IMAGE), stages.StepDraws(0)
    z = torch.randn(2, 4, 1, 2, 2)
    cost, felt = stages.rate_terms(model, z, draws, "normal")
    a, s = torch.sigmoid(torch.tensor(5.0)).sqrt(), torch.sigmoid(torch.tensor(-5.0)).sqrt()
    wanted = torch.distributions.kl_divergence(torch.distributions.Normal(a * z, s), torch.distributions.Normal(0.0, 1))
    torch.testing.assert_close(cost, wanted.flatten(1).sum(1), rtol=1e-4, atol=1e-4)
    assert felt is cost


def test_hidden_frames_are_the_first_one_again():
    frames = torch.randn(1, 3, 5, 2, 2)
    held = stages.hold_first(frames, 3)
    assert held.shape[2] == 8 and all(torch.equal(held[:, :, i], frames[:, :, 0]) for i in range(4))


def test_presets_are_models():
    for name, config in presets.PRESETS.items():
        with torch.device("meta"):
            model = UL(config, ("encoder", "prior", "decoder", "base"))
        assert sum(p.numel() for p in model.parameters()) > 1e5, name
        assert ULConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_training_lowers_the_loss():
    config = ULConfig(latent_channels=4, stride=(1, 8), **{**TRAINED, "dropout": 0.0})
    model = start(config)
    loss = stages.stage_one(model, Colours(), stages.Terms(loss_factor=4.0, bias=1.0), 40, 16)
    optimiser, seen = torch.optim.Adam(model.parameters(), 3e-3), []
    for step in range(40):
        values = loss(step)
        values["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append(float(values["loss"].detach()))
    assert sum(seen[-8:]) < 0.85 * sum(seen[:8])
