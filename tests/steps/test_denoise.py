"""The sampler on numpy arrays with made-up networks: solvers, start points, laziness, previews; M7, M9, M21."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from helios_video.helios_core import pyramid
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.steps.denoise import FiniteCheck, SampleStep, denoise
from helios_video.helios_core.steps.solvers import dmd, euler
from support.sampler import COARSE, CONFIG, draw, plan, wave, white

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

FULL = (1, 2, 3, 16, 24)


class Recorder:
    """A network that remembers its inputs."""

    def __init__(self, velocity=wave):
        self.velocity, self.calls = velocity, []

    def __call__(self, x, t):
        self.calls.append((x.copy(), t))
        return self.velocity(x, t)


def test_shapes_stages_and_indices():
    items = list(denoise(wave, white(COARSE), draw, plan((2, 3, 1), chunk=4)))
    assert [s.stage for s in items] == [0, 0, 1, 1, 1, 2]
    assert [s.index for s in items] == list(range(6))
    assert {s.total for s in items} == {6} and {s.chunk for s in items} == {4}
    assert [s.latent.shape[-1] for s in items] == [6, 6, 12, 12, 12, 24]
    assert items[-1].latent.shape == FULL
    assert all(s.latent.dtype == s.x0.dtype == np.float32 and s.x0.shape == s.latent.shape for s in items)


def test_m21_progress_counts_the_amplified_chunk():
    items = list(denoise(wave, white(COARSE), draw, plan(boost=True)))
    assert len(items) == 12 and {s.total for s in items} == {12} and items[-1].index == 11


def test_m7_m9_start_point_is_the_blended_tensor():
    """Every stage goes back to its own first latent: neither normalised nor drawn anew."""
    net, start = Recorder(), 5 + 3 * white(COARSE)
    items = list(denoise(net, start, draw, plan((2, 2, 2))))
    assert np.array_equal(net.calls[0][0], start)
    rows = schedule.stages(CONFIG)
    for stage in range(3):
        first, second = items[2 * stage], items[2 * stage + 1]
        own = net.calls[2 * stage][0]
        if stage:
            jump = pyramid.block_noise(draw(stage, own.shape), CONFIG.gamma)
            blended = rows[stage].alpha * pyramid.upsample(items[2 * stage - 1].latent) + rows[stage].beta * jump
            assert np.array_equal(own, blended)
        step, last = plan().stage_steps(stage, own.shape)
        x0 = own - step.sigma * wave(own, int(step.t))
        np.testing.assert_allclose(
            first.latent, (1 - step.sigma_next) * x0 + step.sigma_next * own, rtol=1e-6, atol=1e-6
        )
        np.testing.assert_array_equal(second.latent, first.latent - last.sigma * wave(first.latent, int(last.t)))


def test_start_and_draws_are_not_modified():
    start, jumps = white(COARSE), [white((1, 2, 3, 8, 12)), white(FULL)]
    kept = [v.copy() for v in (start, *jumps)]
    list(denoise(wave, start, lambda stage, shape: jumps[stage - 1], plan()))
    assert all(np.array_equal(a, b) for a, b in zip(kept, (start, *jumps), strict=True))


def test_one_draw_per_jump_at_its_size():
    seen = []
    list(denoise(wave, white(COARSE), lambda stage, shape: seen.append((stage, shape)) or white(shape), plan()))
    assert seen == [(1, (1, 2, 3, 8, 12)), (2, FULL)]


def test_timesteps_are_cut_to_integers_in_the_pyramid_and_floats_in_base():
    net = Recorder()
    list(denoise(net, white(COARSE), draw, plan()))
    shapes = [(1, 2, 3, 4, 6), (1, 2, 3, 8, 12), FULL]
    want = [float(int(s.t)) for i, shape in enumerate(shapes) for s in plan().stage_steps(i, shape)]
    assert [t for _, t in net.calls] == want and all(t == int(t) for t in want)
    base = ScheduleConfig(stages=1, stage_range=(0, 1), use_dynamic_shifting=True)
    net, made = Recorder(), plan((5,), "euler", base)
    list(denoise(net, white(COARSE), draw, made))
    assert [t for _, t in net.calls] == [s.t for s in made.stage_steps(0, COARSE)]
    assert any(t != int(t) for _, t in net.calls)


def test_solver_formulas():
    x, v, start = (white(COARSE, i) for i in range(3))
    step = schedule.Step(0.8, 0.3, 500.0)
    x0 = x - step.sigma * v
    np.testing.assert_allclose(dmd(x, x0, start, step), 0.7 * x0 + 0.3 * start, atol=1e-6)
    np.testing.assert_allclose(euler(x, x0, start, step), x - 0.5 * v, atol=1e-6)
    last = schedule.Step(0.8, 0.0, 500.0)
    assert dmd(x, x0, start, last) is x0
    np.testing.assert_allclose(euler(x, x0, start, last), x0, atol=1e-6)


@pytest.mark.parametrize("solver", ["dmd", "euler"])
def test_solvers_are_those_of_diffusers(solver):
    """A stage of five steps, step by step, on the same velocities."""
    import torch
    from diffusers import HeliosDMDScheduler, HeliosScheduler
    from diffusers.pipelines.helios.pipeline_helios_pyramid import calculate_shift

    config = dataclasses.replace(CONFIG, scheduler_type=solver)
    made = plan((5, 5, 5), solver, config)
    options = dict(use_dynamic_shifting=True, time_shift_type="linear")
    oracle = HeliosDMDScheduler(**options) if solver == "dmd" else HeliosScheduler(scheduler_type="euler", **options)
    oracle.set_timesteps(5, 0, device="cpu", mu=calculate_shift(3 * 4 * 6 // 4))
    start = torch.from_numpy(white(COARSE))
    want = start
    items = itertools.islice(denoise(wave, start.numpy(), draw, made), 5)
    for i, (t, got) in enumerate(zip(oracle.timesteps, items, strict=True)):
        extra = dict(
            cur_sampling_step=i,
            dmd_noisy_tensor=start,
            dmd_sigmas=oracle.sigmas,
            dmd_timesteps=oracle.timesteps,
            all_timesteps=oracle.timesteps,
        )
        velocity = torch.from_numpy(wave(want.numpy(), int(t)))
        want = oracle.step(velocity, t, want, return_dict=False, **(extra if solver == "dmd" else {}))[0]
        np.testing.assert_allclose(got.latent, want.numpy(), rtol=2e-5, atol=2e-6)


def test_it_is_lazy():
    """No network call before a step is asked for, one per step, none after the caller stops."""
    net = Recorder()
    items = denoise(net, white(COARSE), draw, plan())
    assert net.calls == []
    for count in (1, 2, 3):
        assert next(items).index == count - 1 and len(net.calls) == count
    items.close()
    assert len(net.calls) == 3


def perfect(clean, noise):
    """The velocity field of one known clean latent and noise pyramid: start point minus end point of each stage."""
    rows = schedule.stages(CONFIG)
    cleans, noises = [clean], [noise]
    for _ in range(2):
        cleans.insert(0, pyramid.downsample(cleans[0], (2,), "content"))
        noises.insert(0, pyramid.downsample(noises[0], (2,), "noise"))

    def predict(x, t):
        stage = next(i for i, c in enumerate(cleans) if c.shape == x.shape)
        row, c, n = rows[stage], cleans[stage], noises[stage]
        return row.start * n + (1 - row.start) * c - (row.end * n + (1 - row.end) * c)

    return predict, cleans, noises


def test_preview_of_a_perfect_model_is_the_clean_latent():
    """In stages 0 and 1 the end point still holds noise; the preview takes it out (factors 2.003, 0.716 and 0)."""
    rows = schedule.stages(CONFIG)
    near = [r.end / (r.start - r.end) for r in rows]
    np.testing.assert_allclose(near, (2.003, 0.716, 0), atol=1e-3)
    predict, cleans, noises = perfect(white(FULL, 1) + 2, white(FULL, 2))
    # The schedule starts at sigma 0.999 of the stage; a start point at sigma 1 leaves a thousandth of the velocity.
    first = next(denoise(predict, noises[0] * 0.999 + cleans[0] * 0.001, draw, plan((1, 1, 1))))
    np.testing.assert_allclose(first.x0, cleans[0], atol=0.03)
    assert np.abs(first.latent - cleans[0]).max() > 1


def test_preview_of_the_last_step_is_the_chunk():
    *_, last = denoise(wave, white(COARSE), draw, plan())
    assert np.array_equal(last.x0, last.latent)


def test_nan_names_chunk_stage_and_step():
    def broken(x, t):
        return wave(x, t) * (np.nan if len(net.calls) == 4 else 1)

    net = Recorder(broken)
    check, held = FiniteCheck(), []
    with pytest.raises(ValueError, match=r"chunk 3, stage 2, step 4 of 6.*NaN"):
        for step in denoise(net, white(COARSE), draw, plan(chunk=2)):
            check.after(step, np.isfinite(step.latent).all())
            held.append(len(check._open))
            assert check._open[0][0].latent is None, "nothing but the flag is kept"
    assert len(net.calls) == 5 and set(held) == {1}, "it ends while the next step is on its way"


def test_infinity_is_found_too():
    step = SampleStep(0, 0, 5, 6, np.array([math.inf]), None)
    with pytest.raises(ValueError, match="chunk 1, stage 1, step 6 of 6"):
        FiniteCheck().after(step, np.isfinite(step.latent).all())
