"""Guidance against diffusers and by hand."""

import math

import pytest
import torch
from helios_video.helios_core.steps import guidance
from helios_video.helios_core.steps.guidance import CFG, CFGZero
from support import sampler

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


SHAPE = (2, 4, 3, 8, 12)


def white(shape=SHAPE, seed=0):
    return torch.from_numpy(sampler.white(shape, seed))


def test_cfg_zero_star_is_that_of_diffusers():
    """Bit for bit, each sample of a batch by its own factor."""
    from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
    from diffusers.pipelines.helios.pipeline_helios_pyramid import optimized_scale

    for seed in range(5):
        c, u = white(seed=seed), 1.7 * white(seed=seed + 100) + white(seed=seed)
        factor = optimized_scale(c.view(2, -1), u.view(2, -1)).view(2, 1, 1, 1, 1)
        assert torch.equal(guidance.projection(c, u), factor)
        assert torch.equal(factor, cfg_zero_star_scale(c.flatten(1), u.flatten(1)).view(2, 1, 1, 1, 1))
        assert torch.equal(CFGZero(5.0)(c, u), u * factor + 5.0 * (c - u * factor))
        assert factor[0] != factor[1]
        assert torch.equal(CFGZero(5.0)(c[:1], u[:1]), CFGZero(5.0)(c, u)[:1])


def test_cfg_zero_star_by_hand():
    """A prediction is projected away; equal predictions stay; an unconditional one of zero gives scale times c."""
    c = white()
    assert torch.allclose(CFGZero(5.0)(c, c), c, atol=1e-5)
    assert torch.allclose(CFGZero(5.0)(c, 2 * c), c, atol=1e-5)
    assert torch.equal(CFGZero(5.0)(c, 0 * c), 5 * c)
    assert not torch.allclose(CFG(5.0)(c, 2 * c), c)


def test_guidance():
    c, u = white(seed=1), white(seed=2)
    torch.testing.assert_close(CFG(5.0)(c, u), u + 5 * (c - u), rtol=1e-6, atol=0)
    assert guidance.from_scale(1.0) is None and guidance.from_scale(0.0) is None
    assert guidance.from_scale(3) == CFG(3)
    for cfg in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="cfg"):
            guidance.from_scale(cfg)
