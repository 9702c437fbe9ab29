"""Pitfalls of earlier ports that lie in code shared by both backends, on MLX's arrays: M7, M9, M16, M18 to M21.

On the networks, and of whole runs: the other modules of this folder. Of numpy frames and Python numbers, which no
backend touches (M4, M6, M17): test_schedule.py, test_video.py, test_boundary.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.history.drift import parse_policy
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.steps.denoise import denoise
from support.mlx import error
from support.reference import PROMPT, build
from support.sampler import COARSE, CONFIG, draw, plan, wave, white

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402


@pytest.fixture(scope="module")
def helios(tmp_path_factory):
    """Distilled, tiny and random."""
    folder = tmp_path_factory.mktemp("distilled")
    build("distilled", folder)
    return load(folder, backend="mlx")


@pytest.mark.parametrize("solver", ["dmd", "unipc", "euler"])
def test_the_sampler_gives_on_mlx_what_it_gives_on_numpy(solver):
    """Every step's latent and preview, through both jumps; nothing becomes numpy on the way."""

    def velocity(x, t):
        return mx.sin(3 * x) + x * (t / 1000)

    ours = list(denoise(velocity, mx.array(white(COARSE)), lambda *a: mx.array(draw(*a)), plan(solver=solver)))
    theirs = list(denoise(wave, white(COARSE), draw, plan(solver=solver)))
    for got, want in zip(ours, theirs, strict=True):
        assert isinstance(got.latent, mx.array) and got.latent.dtype == got.x0.dtype == mx.float32
        assert error(got.latent, want.latent) < 1e-4 and error(got.x0, want.x0) < 1e-4


def test_m7_m9_start_point_is_the_blended_tensor():
    """Every stage goes back to its own first latent: neither normalised nor drawn anew."""
    seen = []

    def velocity(x, t):
        seen.append((x, t))
        return x * 0.5

    items = list(denoise(velocity, mx.array(5 + 3 * white(COARSE)), lambda *a: mx.array(draw(*a)), plan()))
    assert np.array_equal(np.array(seen[0][0]), 5 + 3 * white(COARSE))
    for stage, _ in enumerate(schedule.stages(CONFIG)):
        own, first = np.array(seen[2 * stage][0]), np.array(items[2 * stage].latent)
        step, _ = plan().stage_steps(stage, own.shape)
        want = (1 - step.sigma_next) * (own - step.sigma * own * 0.5) + step.sigma_next * own
        np.testing.assert_allclose(first, want, rtol=1e-5, atol=1e-5)


def test_m16_m18_m19_decoded_frames_are_the_sampled_chunks_alone(helios):
    """With nothing asked for at the joints, whatever is done to the history's copy: to the bit, and in full."""
    latents, chunks = [], []
    options = dict(width=64, height=64, frames=66, seed=2, steps=(1, 1, 1))
    for event in helios.generate(PROMPT, drift=parse_policy("corrupt:0.5"), **options):
        if hasattr(event, "frames"):
            chunks.append(np.concatenate([*event.frames]))
        elif event.index + 1 == event.total:
            latents.append(event.latent)
    assert [chunk.shape for chunk in chunks] == [(33, 64, 64, 3)] * 2
    for latent, chunk in zip(latents, chunks, strict=True):
        assert np.array_equal(helios.decode(latent), chunk)


def test_m20_m21_distilled_runs_one_forward_per_step_and_counts_the_doubled_ones(helios, monkeypatch):
    net, calls = helios.parts.transformer, []
    real = type(net).velocity
    monkeypatch.setattr(type(net), "velocity", lambda *a: calls.append(a[2]) or real(*a))
    text, history = helios.text(PROMPT), helios.history(64, 64)
    steps = list(helios.sample(history, text, seed=1))
    assert len(calls) == len(steps) == 12 and {step.total for step in steps} == {12}
    calls.clear()
    list(helios.sample(history, text, seed=1, steps=(1, 1, 1), boost_first_chunk=False, cfg=2.0))
    assert len(calls) == 6


def test_components_give_their_memory_back(helios, monkeypatch):
    """One after the other under offload sequential: MLX keeps freed memory in a cache until it is told."""
    cleared, real = [], mx.clear_cache
    monkeypatch.setattr(mlx_load.mx, "clear_cache", lambda: cleared.append(1) or real())
    model = load(helios.checkpoint.path, backend="mlx", offload="sequential")
    for count, part in enumerate(("text_encoder", "transformer", "vae")):
        getattr(model.parts, part)
        assert len(cleared) == count
        assert list(model.parts.loaded.networks) == [part]
    model.parts.release("vae")
    assert len(cleared) == 3 and mx.get_cache_memory() == 0
