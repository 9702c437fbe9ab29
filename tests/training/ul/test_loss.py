"""The loss of Unified Latents: its equations, exactly, without a network. Named: U1."""

import math

import numpy as np
import pytest
import torch
from helios_video.helios_core.training.ul import loss as ul_loss
from helios_video.helios_core.ul import logsnr
from support.ul import random_pair

LOW, HIGH = -10.0, 5.0


def grid(low, high, count=20001):
    """Midpoints of levels, evenly: integrals over t of what is linear in the level."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize(("high", "tau", "bits"), [(5, 1, 3.6116), (10, 1, 7.2135), (5, 2, 4.6080), (5, 0.25, 1.6806)])
def test_u1_a_gaussian_latent_costs_its_channel_capacity(high, tau, bits):
    """With the best possible network, rate = 1/2 log2(1 + tau^2 e^lambda0) per dimension."""
    levels = grid(LOW, high)
    a, s = torch.sigmoid(levels), torch.sigmoid(-levels)
    error = tau**2 * s / (a * tau**2 + s)  # of the clean z
    wrong = (error / s).sqrt()[:, None]  # of v: z - zhat = sigma (vhat - v)
    rate = ul_loss.rate(torch.zeros_like(wrong), wrong, levels, (LOW, high)).mean()
    rate = rate + ul_loss.terminal(torch.full((1, 1), float(tau), dtype=torch.float64), LOW)[0]
    assert float(rate) / math.log(2) == pytest.approx(bits, abs=1e-3)
    assert float(ul_loss.gaussian_bits(torch.tensor(tau**2.0), high)) == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_u1_the_two_readings_of_the_sigmoid_weight_are_one(bias):
    """exp(lambda) sigmoid(b - lambda) = exp(b) sigmoid(lambda - b); the loss has the left one, on the noise's error."""
    x, noise, guess, levels = random_pair()
    for level in levels.tolist():
        left = math.exp(level) * logsnr.sigmoid(bias - level)
        assert left == pytest.approx(math.exp(bias) * logsnr.sigmoid(level - bias), rel=1e-5)
    loss = ul_loss.weighted(noise, guess, levels, (-10.0, 8.0), bias=bias)
    shares = torch.sigmoid(levels) * torch.sigmoid(bias - levels)
    torch.testing.assert_close(loss, 9 * shares * (noise - guess).square().sum((1, 2, 3)), rtol=1e-5, atol=0)


def test_the_rate_is_the_weighted_loss_without_a_weight():
    x, noise, guess, levels = random_pair()
    heavy = ul_loss.weighted(noise, guess, levels, (LOW, HIGH), bias=60.0)
    torch.testing.assert_close(ul_loss.rate(noise, guess, levels, (LOW, HIGH)), heavy, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
def test_u1_learned_variance_term_against_monte_carlo(spread):
    """Equation 5 is E[log p(z_0 | x) - log p(z_0 | z)] for z of N(mu, s^2): drawn here, a million times."""
    rng = np.random.default_rng(0)
    a, s = logsnr.alpha(HIGH), logsnr.sigma(HIGH)
    z = 0.3 + spread * rng.standard_normal(1_000_000)
    z0 = a * z + s * rng.standard_normal(len(z))
    total = math.sqrt((a * spread) ** 2 + s**2)
    log = -np.log(total) - 0.5 * ((z0 - a * 0.3) / total) ** 2 + np.log(s) + 0.5 * ((z0 - a * z) / s) ** 2
    term = ul_loss.learned_variance(torch.tensor([[spread**2]], dtype=torch.float64), HIGH)
    assert float(term[0]) == pytest.approx(log.mean(), abs=4 * log.std() / 1000)


def test_terminal_term_is_the_divergence_from_the_standard_normal():
    z = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    a, s = logsnr.alpha(-3.0), logsnr.sigma(-3.0)
    wanted = torch.distributions.kl_divergence(torch.distributions.Normal(a * z, s), torch.distributions.Normal(0.0, 1))
    torch.testing.assert_close(ul_loss.terminal(z, -3.0), wanted.sum(1))


def test_times_are_evenly_spread_and_drawn_once():
    times = ul_loss.times(8, torch.Generator().manual_seed(1))
    assert ((0 <= times) & (times < 1)).all()
    torch.testing.assert_close(times.sort().values.diff(), torch.full((7,), 1 / 8))
    drawn = torch.cat([ul_loss.times(2, torch.Generator().manual_seed(i)) for i in range(500)])
    assert abs(float(drawn.mean()) - 0.5) < 0.03


def test_rate_warm_up_ends_at_exactly_one():
    shares = [ul_loss.warm_up(step, 100) for step in (0, 20, 39, 40, 99)]
    assert shares[0] == 0.02 and 0.4 < shares[1] < 0.6 and shares[2] < 1 == shares[3] == shares[4]


def test_bits_are_per_pixel_of_the_image_and_per_number_of_the_latent():
    nats = torch.tensor([math.log(2) * 1536.0, math.log(2) * 512.0])
    assert float(ul_loss.bits(nats, 32 * 32)) == pytest.approx(1.0)
