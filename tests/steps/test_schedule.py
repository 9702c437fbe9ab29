"""Stage tables and solver steps against frozen tables and against diffusers' schedulers: M4, C1, C2, C3, C4 of Plan."""

import dataclasses
import math

import numpy as np
import pytest
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.steps.denoise import Plan
from helios_video.helios_core.steps.schedule import parse_steps

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


LINEAR = ScheduleConfig(scheduler_type="dmd", use_dynamic_shifting=True, time_shift_type="linear")
EXPONENTIAL = dataclasses.replace(LINEAR, time_shift_type="exponential")
BASE = ScheduleConfig(stages=1, stage_range=(0, 1), use_dynamic_shifting=True)
# ori_start, start, end, t_max, t_min, alpha, beta
STAGES = (
    (0.999, 0.999, 0.666333, 999.0, 743.511744, 1.0, 0.0),
    (0.666333, 0.7997597119, 0.333666, 743.256, 385.971642, 0.6001201441, 0.6926122274),
    (0.333666, 0.5003741566, 0.0, 385.614, 1.383615, 0.7498129217, 0.4333367311),
)
# 384x640, steps 2,2,2: per stage the sigmas before the closing 0, and the timesteps; before or after the upsample
TABLES = {
    ("linear", "before upsample", False): (
        ((0.998177, 0.354035), (998.534227, 833.963564)),
        ((0.998177, 0.354035), (742.604645, 512.462859)),
        ((0.998784, 0.451240), (385.146833, 174.763707)),
    ),
    ("linear", "before upsample", True): (
        ((0.998177, 0.621189, 0.354035, 0.154818), (998.534227, 902.218307, 833.963564, 783.066039)),
        ((0.998177, 0.621189, 0.354035, 0.154818), (742.604645, 607.912851, 512.462859, 441.285852)),
        ((0.998784, 0.711008, 0.451240, 0.215580), (385.146833, 274.574593, 174.763707, 84.216067)),
    ),
    ("linear", "after upsample", False): (
        ((0.998177, 0.354035), (998.534227, 833.963564)),
        ((0.998784, 0.451240), (742.821596, 547.192611)),
        ((0.999479, 0.657436), (385.413697, 253.990515)),
    ),
    ("linear", "after upsample", True): (
        ((0.998177, 0.621189, 0.354035, 0.154818), (998.534227, 902.218307, 833.963564, 783.066039)),
        ((0.998784, 0.711008, 0.451240, 0.215580), (742.821596, 640.003772, 547.192611, 462.995065)),
        ((0.999479, 0.851680, 0.657436, 0.390774), (385.413697, 328.624870, 253.990515, 151.530821)),
    ),
    ("exponential", "before upsample", False): (
        ((0.999422, 0.633688), (998.852249, 905.411564)),
        ((0.999422, 0.633688), (743.049380, 612.378421)),
        ((0.999560, 0.694722), (385.445065, 268.316977)),
    ),
    ("exponential", "before upsample", True): (
        ((0.999422, 0.838081, 0.633688, 0.366357), (998.852249, 957.631612, 905.411564, 837.111593)),
        ((0.999422, 0.838081, 0.633688, 0.366357), (743.049380, 685.404895, 612.378421, 516.865181)),
        ((0.999560, 0.871942, 0.694722, 0.432009), (385.445065, 336.410144, 268.316977, 167.374545)),
    ),
    ("exponential", "after upsample", False): (
        ((0.999422, 0.633688), (998.852249, 905.411564)),
        ((0.999560, 0.694722), (743.098913, 634.185002)),
        ((0.999853, 0.872045), (385.557574, 336.449899)),
    ),
    ("exponential", "after upsample", True): (
        ((0.999422, 0.838081, 0.633688, 0.366357), (998.852249, 957.631612, 905.411564, 837.111593)),
        ((0.999560, 0.871942, 0.694722, 0.432009), (743.098913, 697.502804, 634.185002, 540.321650)),
        ((0.999853, 0.953252, 0.872045, 0.694918), (385.557574, 367.652082, 336.449899, 268.392390)),
    ),
}
BASE_TABLES = {  # 50 steps: the first three sigmas and the last
    "linear": (0.999479, 0.988957, 0.978230, 0.037653),
    "exponential": (0.999853, 0.996866, 0.993772, 0.121995),
}
SHAPES = ((1, 16, 9, 12, 20), (1, 16, 9, 24, 40), (1, 16, 9, 48, 80))


def near(got, want, tolerance=1e-5):
    assert len(got) == len(want)
    assert np.abs(np.array(got) - np.array(want)).max() <= tolerance


def plan(config, steps=(2, 2, 2), **options):
    return Plan(config, steps, options.pop("solver", config.solver), **options)


def test_stage_table():
    for row, want in zip(schedule.stages(LINEAR), STAGES, strict=True):
        near(dataclasses.astuple(row)[1:], want, 1e-9)
    assert all(type(value) is float for row in schedule.stages(LINEAR) for value in dataclasses.astuple(row)[1:])


def test_stage_table_is_that_of_diffusers():
    from diffusers import HeliosDMDScheduler

    for gamma, shift in ((1 / 3, 1.0), (0.2, 1.0), (1 / 3, 3.0)):
        oracle = HeliosDMDScheduler(gamma=gamma, shift=shift)
        for row in schedule.stages(ScheduleConfig(gamma=gamma, shift=shift)):
            i, t = row.index, oracle.timesteps_per_stage[row.index]
            want = (oracle.ori_start_sigmas[i], oracle.start_sigmas[i], oracle.end_sigmas[i], t.max(), t.min())
            near(dataclasses.astuple(row)[1:6], [float(v) for v in want], 1e-10)


@pytest.mark.parametrize("key", TABLES)
def test_tables_of_384x640(key):
    kind, shift_tokens, boost = key
    made = plan(LINEAR if kind == "linear" else EXPONENTIAL, shift_tokens=shift_tokens, boost=boost)
    for stage, (sigmas, timesteps) in enumerate(TABLES[key]):
        rows = made.stage_steps(stage, SHAPES[stage])
        near([r.sigma for r in rows], sigmas)
        near([r.sigma_next for r in rows], [*sigmas[1:], 0.0])
        near([r.t for r in rows], timesteps)
        assert all(type(value) is float for row in rows for value in row)


def test_integer_timesteps_of_the_published_recipe():
    made = plan(LINEAR)
    got = [int(r.t) for stage in range(3) for r in made.stage_steps(stage, SHAPES[stage])]
    assert got == [998, 833, 742, 512, 385, 174]


@pytest.mark.parametrize("kind", BASE_TABLES)
def test_base_table(kind):
    config = dataclasses.replace(BASE, time_shift_type=kind)
    rows = plan(config, (50,), solver="euler").stage_steps(0, SHAPES[2])
    sigmas = [r.sigma for r in rows]
    near([*sigmas[:3], sigmas[-1]], BASE_TABLES[kind])
    near([r.t for r in rows], [1000 * s for s in sigmas], 1e-9)
    assert len(rows) == 50 and rows[-1].sigma_next == 0


@pytest.mark.parametrize("steps", [(2, 2, 2), (1, 1, 1), (10, 10, 10), (3, 1, 7)])
@pytest.mark.parametrize("config", [LINEAR, EXPONENTIAL, ScheduleConfig(scheduler_type="dmd", shift=3.0)])
@pytest.mark.parametrize("boost", [False, True])
def test_dmd_steps_are_those_of_diffusers(steps, config, boost):
    from diffusers import HeliosDMDScheduler, HeliosScheduler

    options = {name: getattr(config, name) for name in ("shift", "gamma", "use_dynamic_shifting", "time_shift_type")}
    for oracle in (HeliosDMDScheduler(**options), HeliosScheduler(scheduler_type="dmd", **options)):
        for stage, n in enumerate(steps):
            oracle.set_timesteps(n, stage, device="cpu", mu=mu(777), is_amplify_first_chunk=boost)
            compare(oracle, schedule.steps(config, stage, n, tokens=777, solver="dmd", boost=boost))


@pytest.mark.parametrize("steps", [(20, 20, 20), (1, 1, 1), (8, 3, 2)])
@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_euler_and_unipc_steps_are_those_of_diffusers(steps, kind, solver):
    from diffusers import HeliosScheduler

    config = ScheduleConfig(scheduler_type=solver, use_dynamic_shifting=True, time_shift_type=kind)
    oracle = HeliosScheduler(scheduler_type=solver, use_dynamic_shifting=True, time_shift_type=kind)
    for stage, n in enumerate(steps):
        oracle.set_timesteps(n, stage, device="cpu", mu=mu(540))
        compare(oracle, schedule.steps(config, stage, n, tokens=540, solver=solver))


@pytest.mark.parametrize("n", [50, 1, 7])
@pytest.mark.parametrize("dynamic", [False, True])
def test_base_steps_are_those_of_diffusers(n, dynamic):
    from diffusers import HeliosScheduler

    config = dataclasses.replace(BASE, use_dynamic_shifting=dynamic)
    oracle = HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=dynamic)
    oracle.set_timesteps(n, device="cpu", sigmas=np.linspace(0.999, 0.0, n + 1)[:-1], mu=mu(8640))
    compare(oracle, schedule.steps(config, 0, n, tokens=8640, solver="unipc"))


def mu(tokens):
    from diffusers.pipelines.helios.pipeline_helios_pyramid import calculate_shift

    return calculate_shift(tokens, 256, 4096, 0.5, 1.15)


def compare(oracle, rows):
    near([r.sigma for r in rows] + [rows[-1].sigma_next], oracle.sigmas.double().tolist(), 1e-9)
    near([r.t for r in rows], oracle.timesteps.double().tolist(), 1e-6)
    assert [r.sigma_next for r in rows[:-1]] == [r.sigma for r in rows[1:]]


def test_m4_time_shift_moves_toward_noise():
    """mu s / (1 + (mu - 1) s), not its inverse; in product form, so that 0 stays 0 without dividing by it."""
    assert schedule.shift_sigma(0.5, 3.0) == pytest.approx(0.75)
    assert schedule.shift_sigma(0.75, 1 / 3) == pytest.approx(0.5)
    for mu_ in (0.548, 1.919, math.exp(1.919)):
        assert schedule.shift_sigma(0.0, mu_) == 0.0 and schedule.shift_sigma(1.0, mu_) == 1.0


@pytest.mark.parametrize("tokens,want", [(540, 0.548073), (2160, 0.822292), (8640, 1.919167)])
def test_m4_dynamic_shift(tokens, want):
    near([schedule.dynamic_shift(tokens, LINEAR)], [want], 1e-6)
    near([schedule.dynamic_shift(tokens, EXPONENTIAL)], [math.exp(want)], 1e-5)


def test_exponential_clamp_of_training_binds_only_above_the_published_size():
    clamp = math.log(7)
    assert schedule.dynamic_shift(8640, EXPONENTIAL, clamp=clamp) == schedule.dynamic_shift(8640, EXPONENTIAL)
    assert schedule.dynamic_shift(20000, EXPONENTIAL, clamp=clamp) == pytest.approx(7)
    assert schedule.dynamic_shift(20000, EXPONENTIAL) > 7


def test_c1_second_of_two_dmd_steps_starts_halfway():
    """Not from sigma 0.001, which would make it a step that does nothing."""
    config = ScheduleConfig(scheduler_type="dmd")
    rows = schedule.steps(config, 0, 2, tokens=540, solver="dmd")
    near([r.sigma for r in rows] + [rows[-1].sigma_next], [0.999, 0.4999995, 0.0], 1e-6)


def test_c2_amplification_reaches_every_stage_of_the_first_chunk():
    made = plan(LINEAR, (2, 3, 1), boost=True)
    assert [len(made.stage_steps(stage, SHAPES[stage])) for stage in range(3)] == [4, 6, 2]
    assert made.total == 12
    plain = plan(LINEAR, (2, 3, 1))
    assert [len(plain.stage_steps(stage, SHAPES[stage])) for stage in range(3)] == [2, 3, 1]


def test_amplification_is_for_dmd_only():
    config = dataclasses.replace(LINEAR, scheduler_type="euler")
    made = plan(config, (2, 3, 1), boost=True)
    assert made.total == 6 and len(made.stage_steps(1, SHAPES[1])) == 3


@pytest.mark.parametrize(
    "options", [{"solver": "heun"}, {"steps": (2, 2)}, {"steps": (2, 0, 2)}, {"shift_tokens": "x"}]
)
def test_plans_that_are_refused(options):
    with pytest.raises(ValueError, match="wanted"):
        plan(LINEAR, **options)


def test_parse_steps():
    assert parse_steps("2,2,2", 3) == parse_steps(" 2 2  2 ", 3) == (2, 2, 2)
    assert parse_steps("50", 1) == (50,)
    for text, words in (
        ("", "wanted"),
        ("2,2", "2 numbers"),
        ("2,0,2", "positive"),
        ("2,x,2", "wanted"),
        ("2.5", "wa"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_steps(text, 3)
