"""Solvers and guidance step by step, against diffusers and by hand; C5."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helios_video.helios_core import pyramid
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.config.variants import SOLVERS
from helios_video.helios_core.steps import schedule, solvers
from helios_video.helios_core.steps.denoise import Plan, denoise
from helios_video.helios_core.steps.guidance import CFGZero
from support import sampler

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

PYRAMID = ScheduleConfig(use_dynamic_shifting=True)
SINGLE = ScheduleConfig(stages=1, stage_range=(0, 1), use_dynamic_shifting=True)


SHAPE = (2, 4, 3, 8, 12)


def white(shape=SHAPE, seed=0):
    return torch.from_numpy(sampler.white(shape, seed))


def wave(x, t):
    """A made-up velocity that depends on latents and timestep."""
    return torch.sin(3 * x) + x * (t / 1000)


def relative(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm())


def stage_of_diffusers(kind, config, stage, n, x):
    """Latents after each step of one stage under diffusers' scheduler, for `wave`."""
    from diffusers import HeliosScheduler
    from diffusers.pipelines.helios.pipeline_helios_pyramid import calculate_shift

    options = {name: getattr(config, name) for name in ("stages", "use_dynamic_shifting", "time_shift_type")}
    oracle = HeliosScheduler(scheduler_type=kind, stage_range=list(config.stage_range), **options)
    sigmas = {"sigmas": np.linspace(0.999, 0.0, n + 1)[:-1]} if config.stages == 1 else {"stage_index": stage}
    oracle.set_timesteps(n, device="cpu", mu=calculate_shift(math.prod(SHAPE[2:]) // 4), **sigmas)
    for t in oracle.timesteps:
        x = oracle.step(wave(x, float(t)), t, x, return_dict=False)[0]
        yield x


@pytest.mark.parametrize("kind", ["unipc", "euler"])
@pytest.mark.parametrize("config,stage", [(SINGLE, 0), (PYRAMID, 0), (PYRAMID, 2)])
@pytest.mark.parametrize("n", [1, 2, 3, 20, 50])
def test_single_steps_are_those_of_diffusers(kind, config, stage, n):
    """Every step, and each from the oracle's own latents for Euler, where a step has no past."""
    rows = schedule.steps(config, stage, n, tokens=math.prod(SHAPE[2:]) // 4, solver=kind)
    solve, x, start = solvers.SOLVERS[kind](), white(), white()
    for step, want in zip(rows, stage_of_diffusers(kind, config, stage, n, start), strict=True):
        x = solve(x, x - step.sigma * wave(x, step.t), start, step)
        assert x.dtype == torch.float32 and relative(x, want) <= 1e-6
        x = want if kind == "euler" else x


def test_unipc_is_exact_for_a_constant_estimate_and_better_than_euler():
    """A constant x0 is hit by any step; on a curved field ten steps of UniPC beat ten of Euler by far."""
    end, start = white(seed=1).double(), white(seed=2).double()
    solve, x = solvers.UniPC(), start
    for step in schedule.steps(SINGLE, 0, 4, tokens=100, solver="unipc"):
        x = solve(x, end, start, step)
    assert relative(x, end) < 1e-7

    def run(kind, n):
        solve, x = solvers.SOLVERS[kind](), start
        for step in schedule.steps(ScheduleConfig(stages=1, stage_range=(0, 1)), 0, n, tokens=1, solver=kind):
            x = solve(x, x - step.sigma * torch.sin(x), start, step)
        return x

    exact = run("unipc", 1000)
    assert relative(run("unipc", 10), exact) < 0.3 * relative(run("euler", 10), exact)


@pytest.mark.parametrize("kind", SOLVERS)
def test_c5_stages_hand_over_a_latent_and_no_solver_state(kind):
    """A stage's steps, bit for bit, from the last latent of the stage before; a second chunk is like the first."""
    config = dataclasses.replace(PYRAMID, scheduler_type=kind)
    plan = Plan(config, (3, 2, 3), kind)
    draws = {1: white((1, 4, 3, 8, 12), 1), 2: white((1, 4, 3, 16, 24), 2)}
    start = white((1, 4, 3, 4, 6))
    first, again = ([s.latent for s in denoise(wave, start, lambda i, _: draws[i], plan)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    jump = schedule.stages(config)[2]
    x = stage = jump.alpha * pyramid.upsample(first[4]) + jump.beta * pyramid.block_noise(draws[2], config.gamma)
    solve = solvers.SOLVERS[kind]()
    for step, want in zip(plan.stage_steps(2, x.shape), first[5:], strict=True):
        x = solve(x, x - step.sigma * wave(x, float(int(step.t))), stage, step)
        assert torch.equal(x, want)


@pytest.mark.parametrize("kind", SOLVERS)
def test_any_arrays_will_do_and_none_is_modified(kind):
    """numpy in, numpy float32 out, and the same numbers as torch."""
    results = []
    for kept in (white(), white().numpy()):
        solve, x, start = solvers.SOLVERS[kind](), kept, kept
        for step in schedule.steps(PYRAMID, 1, 4, tokens=100, solver=kind):
            x = solve(x, x * 0.5 + 0.1, start, step)
        results.append(x)
        assert x.dtype == kept.dtype and np.array_equal(kept, white().numpy())
    assert isinstance(results[1], np.ndarray)
    np.testing.assert_allclose(results[1], results[0].numpy(), rtol=1e-5, atol=1e-6)


def test_solvers_of_files_and_sampler_are_the_same():
    assert set(solvers.SOLVERS) == set(SOLVERS)


def test_zeroed_steps_leave_the_latents_where_they_are_for_euler():
    plan = Plan(PYRAMID, (3, 1, 1), "euler", guide=CFGZero(5.0, 2))
    start, calls = white((1, 4, 3, 4, 6)), []

    def predict(x, t):
        calls.append(t)
        return wave(x, t)

    steps = list(denoise(predict, start, lambda _, shape: white(shape), plan))
    assert len(steps) == 5 and len(calls) == 3
    assert torch.equal(steps[0].latent, start) and torch.equal(steps[1].latent, start)
    assert not torch.equal(steps[2].latent, start)


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_whole_chunk_on_mlx_is_that_on_numpy(kind):
    """Jumps, guide and solver hold no torch: the other backend takes them as they are."""
    mlx = pytest.importorskip("mlx.core")
    guide, plan = CFGZero(5.0), Plan(PYRAMID, (3, 2, 2), kind, guide=CFGZero(5.0))
    last = []

    def predict(x, t):
        return guide(0.5 * x + 0.1, 0.3 * x - 0.2)

    for array in (np.array, mlx.array):
        start = array(white((1, 4, 3, 4, 6)).numpy())
        chunk = denoise(predict, start, lambda _, shape, array=array: array(white(shape).numpy()), plan)
        last.append(np.array(list(chunk)[-1].latent))
    np.testing.assert_allclose(last[1], last[0], rtol=1e-4, atol=1e-4)
