"""Decoding with a diffusion decoder: blocks, tiles and the whole are the same; noise belongs to frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch import load as backend
from helios_video.helios_core.ul.decode import DecodePlan, Draws, clamp, decode, regions
from support.ul import IMAGE, VIDEO, build

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((1, 4, 4, 6, 10), dtype=np.float32)
PIXELS = RNG.uniform(-1, 1, (1, 3, 13, 48, 80)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return build(VIDEO, ("decoder",))


@torch.inference_mode()
def frames(model, plan, z=Z, on=backend, **more):
    parts = [d.frames for d in decode(model, z, plan, backend=on, **more) if d.frames is not None]
    return torch.cat(parts, dim=2)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("pixels", [None, PIXELS], ids=["noise", "warm"])
def test_blocks_and_tiles_are_the_whole(model, steps, pixels):
    """At one step as at several: every step of a block continues that step of the block before."""
    plan = DecodePlan(steps=steps, start=-1.0, block=4)
    whole = frames(model, plan, pixels=pixels)
    assert whole.shape == (1, 3, 13, 48, 80) and whole.std() > 0.05
    blocks = frames(model, replace(plan, block=1), pixels=pixels)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-5)
    tiles = frames(model, replace(plan, block=3, tile=2), pixels=pixels)
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-5)


def test_tiles_stay_where_they_are_computed(model):
    """Nothing comes back to the host between steps, and what is sent are the draws and the pixels of a block alone."""
    sent = []

    class Device:
        """A backend that gives nothing back."""

        def array(self, values, like=None):
            sent.append(values.size)
            return backend.array(values, like)

        def finish(self, *arrays):
            assert all(isinstance(x, torch.Tensor) for x in arrays)

    for plan in (DecodePlan(steps=3, start=-1.0, block=4), DecodePlan(steps=3, start=-1.0, block=4, tile=2)):
        sent.clear()
        frames(model, plan, pixels=PIXELS, on=Device())
        assert sum(n > 1 for n in sent) == 4, "latents, their noise, pixels, the frames' noise"


def test_tiles_are_smaller_than_the_whole():
    wide = regions(64, 16, VIDEO.window, VIDEO.reach)
    assert len(wide) == 4 and wide[1].keep == slice(16, 32)
    assert all(0 < r.see.stop - r.see.start < 40 for r in wide)
    assert wide[0].see.start == 0 and wide[-1].see.stop == 64


def test_noise_belongs_to_absolute_frames(model):
    """A video's second clip, decoded alone, is what it is after the first; with other numbers it is another."""
    alone = frames(model, DecodePlan(), first=9)
    assert torch.equal(alone, frames(model, DecodePlan(), first=9))
    assert (alone - frames(model, DecodePlan())).abs().max() > 1e-3
    assert (alone - frames(model, DecodePlan(), first=9, seed=1)).abs().max() > 1e-3
    draws = Draws(7, Z.shape, VIDEO)
    np.testing.assert_array_equal(draws.frames(0, 8)[:, :, 5], draws.frames(5, 6)[:, :, 0])
    np.testing.assert_array_equal(draws.latents(2, 4), Draws(7, Z.shape, VIDEO, first=2).latents(0, 2))


def test_an_element_of_a_batch_has_its_own_seed(model):
    pair = frames(model, DecodePlan(), np.concatenate([Z, Z]), seed=3)
    torch.testing.assert_close(pair[1:], frames(model, DecodePlan(), seed=4), rtol=0, atol=1e-5)


def test_progress_counts_every_step(model):
    with torch.inference_mode():
        seen = [
            (d.done, d.total, d.frames is None) for d in decode(model, Z, DecodePlan(steps=2, block=2), backend=backend)
        ]
    assert seen == [(1, 4, True), (2, 4, False), (3, 4, True), (4, 4, False)]


def test_a_warm_start_keeps_what_it_starts_from():
    """The less noise it is given, the more of the other decoder's picture is left."""
    model = build(replace(VIDEO, with_pixels=False), ("decoder",))
    far, near = (frames(model, DecodePlan(start=s), pixels=PIXELS) for s in (-2.0, 7.9))
    pixels = torch.from_numpy(PIXELS)
    assert (near - pixels).abs().mean() < 0.1 < (far - pixels).abs().mean()


def test_the_level_of_the_latents_counts(model):
    assert (frames(model, DecodePlan()) - frames(model, DecodePlan(latent_noise=1.0))).abs().max() > 1e-3


def test_clamp_is_exact_inside():
    x = np.linspace(-2, 2, 4001, dtype=np.float32)
    np.testing.assert_allclose(clamp(x), np.clip(x, -1, 1), atol=1e-7)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"steps": 0}, "steps must be 1 to 20"), ({"steps": 21}, "got 21"), ({"latent_noise": -1}, "got -1")],
)
def test_plans_that_cannot_be_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        DecodePlan(**given)


def test_what_does_not_fit_is_named(model):
    with pytest.raises(ValueError, match="another latent space"):
        frames(model, DecodePlan(), Z[:, :3])
    with pytest.raises(ValueError, match="must be \\[1, 3, 13, 48, 80\\]"):
        frames(model, DecodePlan(), pixels=PIXELS[:, :, 1:])
    with pytest.raises(ValueError, match="knows levels up to 8"):
        frames(model, DecodePlan(start=9.0), pixels=PIXELS)
    with pytest.raises(ValueError, match="attends to whole frames"):
        frames(build(IMAGE, ("decoder",)), DecodePlan(tile=4), Z[:, :, :1])
