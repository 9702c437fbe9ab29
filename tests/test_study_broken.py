"""The bench tells a good sampler from a broken one: three classic faults, each on a short run of helios-tiny."""

from dataclasses import replace

import pytest
import torch
from einops import reduce
from helios_video.helios_core import load, solvers
from helios_video.helios_core.study import bench

SCENES, CHUNKS = bench.held_out_scenes(12), 2


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
    model = helios.transformer
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
    helios.config = replace(helios.config, schedule=schedule)


@pytest.mark.parametrize("fault", [fresh_noise, history_at_stage_resolution, wrong_shift_type])
def test_a_broken_sampler_scores_visibly_worse(good, fault, monkeypatch):
    helios = load()
    fault(helios, monkeypatch)
    bad = measure(helios)
    print(fault.__name__, good["merit"], bad["merit"])
    assert bad["merit"] < good["merit"] - 0.05
