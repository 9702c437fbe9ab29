"""The bench on three classic faults of samplers, each on a short run of helios-tiny: two show, one cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import reduce
from helios_video.helios_core import load
from helios_video.helios_core.drawn import bench
from helios_video.helios_core.steps import solvers

pytestmark = pytest.mark.slow
SCENES, CHUNKS = bench.held_out_scenes(12), 4


def measure(helios) -> dict:
    return bench.summarise(*bench.run(helios, SCENES, [0], CHUNKS, batch=len(SCENES)))


@pytest.fixture(scope="module")
def good():
    return measure(load())


def fresh_noise(helios, patch):
    """Every step goes back to new noise instead of the stage's start point."""
    generator = torch.Generator().manual_seed(0)

    def renoise(x, x0, start, step):
        return solvers.dmd(x, x0, torch.randn(start.shape, generator=generator), step)

    patch.setitem(solvers.SOLVERS, "dmd", lambda: renoise)


def history_at_stage_resolution(helios, patch):
    """Every stage sees the past at its own resolution instead of the full one."""
    model = helios.parts.transformer
    context, velocity = model.history_context, model.velocity

    def small(x, t, text, parts):
        k = parts.short.shape[-1] // x.shape[-1]
        means = [reduce(p, "b c t (h k) (w l) -> b c t h w", "mean", k=k, l=k) for p in parts[:3]]
        return velocity(x, t, text, context(parts._replace(long=means[0], mid=means[1], short=means[2])))

    patch.setattr(model, "history_context", lambda parts: parts)
    patch.setattr(model, "velocity", small)


def wrong_shift_type(helios, patch):
    """Sigmas shifted exponentially where the checkpoint's are shifted linearly."""
    schedule = replace(helios.config.schedule, time_shift_type="exponential")
    helios.checkpoint = helios.checkpoint._replace(config=replace(helios.config, schedule=schedule))


def faulty(fault, monkeypatch) -> dict:
    helios = load()
    fault(helios, monkeypatch)
    return measure(helios)


def test_a_wrong_history_costs_accuracy(good, monkeypatch):
    bad = faulty(history_at_stage_resolution, monkeypatch)
    assert bad["merit"] < good["merit"] - 0.05
    assert bad["colour_error"][-1] > good["colour_error"][-1]


def test_fresh_noise_shrinks_objects_and_latents(good, monkeypatch):
    bad = faulty(fresh_noise, monkeypatch)
    assert bad["size"][-1] < good["size"][-1] - 0.2
    assert np.mean(bad["latent_std"][-1]) < np.mean(good["latent_std"][-1]) - 0.1
    assert bad["colour_error"][-1] > 1.4 * good["colour_error"][-1]


def test_the_shift_type_hardly_matters_to_helios_tiny(good, monkeypatch):
    """Its two steps per stage land nearly the same from either sigma: a fault that this model cannot show."""
    bad = faulty(wrong_shift_type, monkeypatch)
    assert bad["latent_std"] != good["latent_std"]
    assert abs(bad["merit"] - good["merit"]) < 0.05
