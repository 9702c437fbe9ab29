"""Levels of noise and the samplers over them, exactly, without a network. Named: U1."""

import math

import numpy as np
import pytest
import torch
from helios_video.helios_core.ul import logsnr
from support.ul import random_pair

HIGH = 5.0


def test_u1_errors_of_x_noise_and_v_weigh_the_same():
    """exp(lambda) ||x - xhat||^2 = ||eps - epshat||^2 = sigmoid(lambda) ||v - vhat||^2, for any guess of v."""
    x, noise, guess, levels = random_pair()
    for i, level in enumerate(levels.tolist()):
        a, s = logsnr.alpha(level), logsnr.sigma(level)
        noisy, v = logsnr.add_noise(x[i], noise[i], level), a * noise[i] - s * x[i]
        of_x = math.exp(level) * (x[i] - logsnr.clean(noisy, guess[i], level)).square().sum()
        of_noise = (noise[i] - (s * noisy + a * guess[i])).square().sum()
        of_v = logsnr.sigmoid(level) * (v - guess[i]).square().sum()
        torch.testing.assert_close(of_noise, of_x, rtol=1e-5, atol=0)
        torch.testing.assert_close(of_v, of_x, rtol=1e-5, atol=0)


class Gaussian:
    """The best network for x of N(mean, tau^2): what a sampler must turn noise into is known."""

    mean, tau = 0.7, 0.4

    def estimate(self, x, level, index):
        a, s = logsnr.alpha(level), logsnr.sigma(level)
        return self.mean + a * self.tau**2 / (a**2 * self.tau**2 + s**2) * (x - a * self.mean)


@pytest.mark.parametrize("kind", ["ddim", "ancestral"])
def test_samplers_reach_the_distribution_of_noisy_latents(kind):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(200_000)
    draw = None if kind == "ddim" else (lambda index: rng.standard_normal(len(start)))
    *_, last = logsnr.sample(Gaussian().estimate, start, logsnr.levels(-12.0, HIGH, 200), draw)
    a, s = logsnr.alpha(HIGH), logsnr.sigma(HIGH)
    assert last.x.mean() == pytest.approx(a * 0.7, abs=0.005)
    assert last.x.std() == pytest.approx(math.hypot(a * 0.4, s), rel=0.02)
    assert last.index + 1 == last.total == 200


def test_one_ancestral_step_keeps_the_marginal():
    """x_t of a known clean x, stepped with that x, is x_s in mean and variance."""
    rng = np.random.default_rng(0)
    noise, fresh = rng.standard_normal((2, 400_000))
    x = logsnr.ancestral(logsnr.add_noise(0.7, noise, -2.0), 0.7, -2.0, 1.5, fresh)
    assert x.mean() == pytest.approx(logsnr.alpha(1.5) * 0.7, abs=0.003)
    assert x.std() == pytest.approx(logsnr.sigma(1.5), rel=0.005)


def test_ddim_step_moves_along_the_same_noise():
    x = logsnr.ddim(logsnr.add_noise(0.3, -1.2, -4.0), 0.3, -4.0, 6.0)
    assert x == pytest.approx(logsnr.add_noise(0.3, -1.2, 6.0))


def test_the_latents_noise_in_the_units_of_a_flow():
    assert logsnr.flow_time(5.0) == pytest.approx(0.0759, abs=5e-5)
    s = logsnr.flow_time(1.3)
    assert 2 * math.log((1 - s) / s) == pytest.approx(1.3)
