"""Variance Expansion: gradients against finite differences, equilibria against their closed forms, no dead ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.study.ve import law
from helios_video.helios_core.training.ve import terms

TERMS = {
    "inverse variance": lambda mean, logvar: terms.inverse_variance(logvar),
    "with delta": lambda mean, logvar: terms.inverse_variance(logvar, 1e-2),
    "scale-free": lambda mean, logvar: terms.scale_free(mean, logvar),
    "scale-free with delta": lambda mean, logvar: terms.scale_free(mean, logvar, 1e-2),
    "log variance": lambda mean, logvar: terms.log_variance(logvar),
    "kl": terms.kl,
    "size": lambda mean, logvar: terms.size(3 * mean),
    "size, far out": lambda mean, logvar: terms.size(30 * mean) * 1e-8,
    "inverse variance, far down": lambda mean, logvar: terms.inverse_variance(logvar - 18) * 1e-8,
    "near delta": lambda mean, logvar: terms.inverse_variance(logvar - 9, terms.DELTA) * 1e-3,
}
WHOLE = [
    terms.VarianceExpansion(0.3, size_weight=0.1, delta=0.01),
    terms.VarianceExpansion(0.3, free_of_scale=True),
    terms.KL(0.3),
    terms.LogVariance(0.3, size_weight=0.1),
]


def posterior(seed=0, shape=(3, 4, 2, 2)):
    """Values away from the kinks, where a finite difference is no derivative."""
    generator = torch.Generator().manual_seed(seed)
    mean, logvar, eps = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return mean + 0.2 * mean.sign(), logvar + 0.1 * logvar.sign(), eps


@pytest.mark.parametrize("name", TERMS)
def test_gradients_of_every_term_are_finite_differences(name):
    mean, logvar, _ = posterior()
    inputs = (mean.requires_grad_(), logvar.requires_grad_())
    assert torch.autograd.gradcheck(lambda *x: TERMS[name](*x).sum(), inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("term", WHOLE, ids=lambda t: type(t).__name__)
def test_gradients_of_the_whole_losses_are_finite_differences(term):
    mean, logvar, eps = posterior(1)
    decoder = torch.linspace(-1, 1, 16 * 12, dtype=torch.float64).view(16, 12)
    target = torch.ones(3, 12, dtype=torch.float64)

    def loss(mean, logvar):
        z = mean + (0.5 * logvar).exp() * eps
        return terms.reconstruction(z.flatten(1) @ decoder, target) + term(mean, logvar, z)

    assert torch.autograd.gradcheck(loss, (mean.requires_grad_(), logvar.requires_grad_()), eps=1e-6, atol=1e-5)


def test_losses_are_sums_over_dimensions_and_means_over_the_batch():
    mean, logvar, eps = posterior()
    term = terms.VarianceExpansion(0.5, size_weight=0.0)
    assert float(term(mean, logvar, mean)) == pytest.approx(0.5 * float((1 / logvar.exp()).sum()) / 3)
    twice = term(mean.repeat(2, 1, 1, 1), logvar.repeat(2, 1, 1, 1), eps)
    assert float(twice) == pytest.approx(float(term(mean, logvar, eps)))


def test_a_linear_decoder_finds_the_law_with_slope_one():
    """By descent on the loss with sampled noise."""
    decoder, term = law.linear_decoder(0), terms.VarianceExpansion(0.1, size_weight=0.0)
    sigma, wanted = law.linear_sigma(decoder, term, seed=0), terms.equilibrium((decoder**2).sum(1), term)
    slope, offset = np.polyfit(np.log(wanted.numpy()), np.log(sigma.numpy()), 1)
    assert abs(slope - 1) < 0.01 and abs(offset) < 0.01
    np.testing.assert_allclose(sigma, wanted, rtol=0.02)


@pytest.mark.parametrize(
    "term",
    [
        terms.VarianceExpansion(0.1, size_weight=0.0, delta=0.02),
        terms.VarianceExpansion(0.1, size_weight=0.0, free_of_scale=True),
        terms.VarianceExpansion(0.1, size_weight=0.0, free_of_scale=True, delta=0.001),
        terms.KL(0.1),
        terms.LogVariance(0.1, size_weight=0.0),
    ],
    ids=["delta", "scale-free", "scale-free with delta", "kl", "log variance"],
)
def test_the_closed_forms_are_where_the_gradient_vanishes(term):
    decoder = law.linear_decoder(2)
    sensitivity = (decoder**2).sum(1)
    mean = 3 * torch.randn(32, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sigma = terms.equilibrium(sensitivity, term, mean.std(0))
    assert (sigma > 0).all()

    def slope(factor):
        logvar = (2 * (factor * sigma).log()).expand_as(mean).clone().requires_grad_()
        cost = (logvar.exp() * sensitivity).sum(1).mean() + term(mean, logvar, mean)
        return torch.autograd.grad(cost, logvar)[0].sum(0) / (sigma**2 * sensitivity)

    assert slope(1.0).abs().max() < 1e-9
    assert (slope(0.9) < 0).all() and (slope(1.1) > 0).all()


def test_a_delta_that_is_too_large_leaves_no_noise():
    assert terms.equilibrium(100.0, terms.VarianceExpansion(0.01, delta=0.1)) == 0
    assert terms.equilibrium(100.0, terms.VarianceExpansion(0.01)) == pytest.approx(0.1)


def test_growing_latents_lower_the_plain_term_and_not_the_scale_free_one():
    mean, logvar, _ = posterior()
    bigger = (4 * mean, logvar + 2 * np.log(4))
    free, plain = terms.VarianceExpansion(free_of_scale=True, size_weight=0), terms.VarianceExpansion(size_weight=0)
    assert float(plain(*bigger, mean)) == pytest.approx(float(plain(mean, logvar, mean)) / 16)
    assert float(free(*bigger, mean)) == pytest.approx(float(free(mean, logvar, mean)))


def test_nothing_pushes_the_scale_at_the_scale_free_equilibrium():
    """Reconstruction noise pulls the means up as much as the spread in the term holds them down."""
    decoder = law.linear_decoder(2)
    sensitivity = (decoder**2).sum(1)
    mean = torch.randn(64, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    term = terms.VarianceExpansion(0.1, size_weight=0.0, free_of_scale=True)
    logvar = 2 * terms.equilibrium(sensitivity, term, mean.std(0)).log().expand_as(mean)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    cost = (logvar.exp() * sensitivity / scale**2).sum(1).mean() + term(scale * mean, logvar, mean)
    assert abs(float(torch.autograd.grad(cost, scale)[0])) < 1e-9 * float(cost.detach())


@pytest.mark.parametrize("delta", [0.0, terms.DELTA])
def test_a_collapsed_posterior_has_a_gradient_up_and_no_overflow(delta):
    """Far below the floor too, where a clamp would have none."""
    logvar = torch.tensor([[-18.42, -30.0, -200.0, -10.0, 0.0, 20.0]], requires_grad=True)
    loss = terms.VarianceExpansion(0.1, delta=delta)(torch.zeros(1, 6), logvar, torch.tensor([[1e4] * 6]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logvar.grad).all() and (logvar.grad < 0).all()
    if delta:
        assert float(logvar.grad.abs().max()) <= 0.1 / (4 * delta) and float(logvar.grad[0, 2]) < -0.1
    else:
        assert float(logvar.grad[0, 2]) == float(logvar.grad[0, 1])


def test_the_tangents_join_without_a_step():
    for at, term in ((terms.LOGVAR_FLOOR, terms.inverse_variance), (terms.SIZE_CEILING + 1, terms.size)):
        x = torch.tensor([at - 1e-6, at + 1e-6], dtype=torch.float64, requires_grad=True)
        value = term(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        torch.testing.assert_close(value[0], value[1], rtol=1e-5, atol=0)
        torch.testing.assert_close(slope[0], slope[1], rtol=1e-5, atol=0)
