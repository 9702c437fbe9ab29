"""Base, Mid and Distilled: parity with diffusers, guidance, recognition. Named: C2, D2, D9, M20, M21, M22, S2, S4."""

import dataclasses
import itertools
import json

import pytest
import torch
from helios_video.helios_core import load, pyramid
from helios_video.helios_core.config.model import ScheduleConfig, find_variant, read_folder
from helios_video.helios_core.config.variants import PRESETS
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.steps.denoise import plan_chunk
from helios_video.helios_core.steps.guidance import CFG, CFGZero
from helios_video.helios_core.text import Embedding
from support.reference import HEIGHT, PROMPT, SEED, VARIANTS, WIDTH, build, compare, error, run_oracle, run_ours

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """(name, our model, diffusers pipeline)"""
    return request.param, *build(request.param, tmp_path_factory.mktemp(request.param))


def test_parity_of_each_variant_over_three_chunks(variant, monkeypatch):
    """Everything is the checkpoint's own but the number of steps: solver, guidance, zeroed steps, shift."""
    name, model, oracle = variant
    assert model.config.variant == name and model.config.defaults.solver == PRESETS[name].solver
    want, frames = run_oracle(monkeypatch, oracle, 3, **VARIANTS[name].call)
    worst = compare(model, want, frames, *run_ours(model, 3, **VARIANTS[name].ours), tolerance=1e-5)
    print(f"{name}: largest relative error of a step's latents {worst:.1e}")


@pytest.mark.slow
def test_parity_with_the_published_numbers_of_steps(variant, monkeypatch):
    """Base with 50 steps and Mid with 20,20,20, every step of three chunks."""
    name, model, oracle = variant
    if name == "distilled":
        pytest.skip("the quick test has them already")
    own = {"num_inference_steps": 50} if name == "base" else {"pyramid_num_inference_steps_list": [20, 20, 20]}
    want, frames = run_oracle(monkeypatch, oracle, 3, **{**VARIANTS[name].call, **own})
    compare(model, want, frames, *run_ours(model, 3), tolerance=1e-5)


@pytest.mark.parametrize(
    "name,flags,options,ours",
    [
        ("base", None, dict(scheduler_type="euler"), {}),
        ("base", None, dict(time_shift_type="linear"), {}),
        ("mid", dict(is_cfg_zero_star=False), dict(scheduler_type="euler"), {}),
        ("mid", dict(is_cfg_zero_star=False), dict(time_shift_type="linear"), {}),
        ("mid", dict(is_cfg_zero_star=True), dict(use_dynamic_shifting=False, shift=3.0), {}),
        ("distilled", dict(is_distilled=True), dict(time_shift_type="exponential"), {}),
        ("distilled", dict(is_distilled=True, is_cfg_zero_star=True), {}, dict(cfg=3.0)),
    ],
)
def test_parity_of_other_configs(tmp_path, monkeypatch, name, flags, options, ours):
    """Solver, kind of guidance and kind of shift follow the checkpoint's files; two chunks."""
    model, oracle = build(name, tmp_path, flags=flags, **options)
    call = {**VARIANTS[name].call, **({"guidance_scale": ours["cfg"]} if ours else {})}
    want, frames = run_oracle(monkeypatch, oracle, 2, **call)
    compare(model, want, frames, *run_ours(model, 2, **VARIANTS[name].ours, **ours), tolerance=1e-5)


def test_parity_with_another_zero_steps(tmp_path, monkeypatch):
    """Their zero_steps 0 zeroes one step, and so does our 1; use_zero_init off is 0."""
    model, oracle = build("mid", tmp_path)
    for theirs, ours in ((dict(zero_steps=0), 1), (dict(use_zero_init=False), 0)):
        want, frames = run_oracle(monkeypatch, oracle, 1, **VARIANTS["mid"].call, **theirs)
        compare(model, want, frames, *run_ours(model, 1, **VARIANTS["mid"].ours, zero_steps=ours), tolerance=1e-5)


def test_s2_timesteps_are_cut_in_every_stage_but_are_floats_in_base(variant, monkeypatch):
    name, model, _ = variant
    seen, real = [], model.parts.transformer.velocity
    monkeypatch.setattr(model.parts.transformer, "velocity", lambda *a: seen.append(a[1]) or real(*a))
    run_ours(model, 1, **VARIANTS[name].ours, boost_first_chunk=False)
    assert len(seen) == {"base": 12, "mid": 16, "distilled": 6}[name]
    assert all(t == int(t) for t in seen) == (name != "base")


def test_m22_nothing_waits_for_the_device_between_steps(variant, monkeypatch):
    """All that is asked of an array on the way is whether the latent before it was finite; a stage has one shape."""
    name, model, _ = variant
    seen, real = [], model.parts.transformer.velocity
    monkeypatch.setattr(model.parts.transformer, "velocity", lambda *a: seen.append(tuple(a[0].shape)) or real(*a))
    text = model.text(PROMPT)
    steps = model.sample(model.history(WIDTH, HEIGHT), text, seed=SEED, negative=text, **VARIANTS[name].ours)
    total = next(steps).total
    with monkeypatch.context() as patch:
        for way in ("item", "tolist", "__float__", "__int__", "numpy"):
            patch.setattr(torch.Tensor, way, lambda *_, way=way: pytest.fail(f"{way} between steps"))
        asked, truth = [], torch.Tensor.__bool__
        patch.setattr(torch.Tensor, "__bool__", lambda flag: asked.append(len(seen)) or truth(flag))
        assert all(next(steps).index == i for i in range(1, total - 1))
        assert len(asked) == total - 2, "one flag a step, once the next step is on its way"
    assert len(list(steps)) == 1
    assert len(set(seen)) == model.config.schedule.stages


def test_c2_m21_steps_of_the_first_chunk(variant):
    """Every stage of Distilled is doubled, in the first chunk only; the others take no notice."""
    name, model, _ = variant
    history = model.history(WIDTH, HEIGHT)
    totals = {"base": (50, 50), "mid": (60, 60), "distilled": (12, 6)}[name]
    for k, total in enumerate(totals):
        plan = plan_chunk(model.config, k)
        shape = model.coarsest(history)
        sizes = [(*shape[:3], shape[3] * 2**i, shape[4] * 2**i) for i in range(len(plan.steps))]
        counts = [len(plan.stage_steps(i, size)) for i, size in enumerate(sizes)]
        assert plan.total == sum(counts) == total and len(set(counts)) == 1


def test_d2_a_given_start_is_where_it_starts(variant):
    """The start of one seed under another: what it draws itself, bit for bit, and not what the other draws."""
    name, model, _ = variant
    history, text = model.history(WIDTH, HEIGHT), model.text(PROMPT)
    options = {"negative": text, **VARIANTS[name].ours}
    start = pyramid.downsample(model.noise(history, 1), (2,) * (model.config.schedule.stages - 1))
    own, given, other = (
        list(model.sample(history, text, seed=seed, start=begin, **options))[0].latent
        for seed, begin in ((1, None), (2, start), (2, None))
    )
    assert torch.equal(own, given) and error(other, own) > 0.1


def test_a_batch_is_its_elements(variant):
    """Each element as alone: CFG-Zero* fits every sample by its own factor."""
    name, model, _ = variant
    text = model.text([PROMPT, "grey"])
    options = {"negative": model.text(""), **VARIANTS[name].ours}
    both = list(model.sample(model.history(WIDTH, HEIGHT, batch=2), text, seed=SEED, **options))[-1].latent
    for i in range(2):
        its = Embedding(text.rows[i : i + 1], text.length)
        one = list(model.sample(model.history(WIDTH, HEIGHT), its, seed=SEED + i, **options))[-1].latent
        assert error(both[i : i + 1], one) <= 1e-5


def test_zeroed_steps_skip_both_forwards(tmp_path, monkeypatch):
    """Two of stage 0's steps by default, none in later stages, none without CFG-Zero*, at most all of stage 0."""
    model, _ = build("mid", tmp_path)
    real, calls = model.parts.transformer.velocity, []
    monkeypatch.setattr(model.parts.transformer, "velocity", lambda *a: calls.append(a[0].shape[-1]) or real(*a))

    def count(**options):
        calls.clear()
        run_ours(model, 1, steps=(4, 2, 2), **options)
        return [calls.count(w) for w in (4, 8, 16)]

    assert count() == [4, 4, 4]
    assert count(zero_steps=0) == count(guidance="cfg") == [8, 4, 4]
    assert count(zero_steps=3) == [2, 4, 4] and count(zero_steps=9) == [0, 4, 4]
    assert count(cfg=1.0) == [4, 2, 2]


def test_the_variant_decides_the_guide(variant):
    name, model, _ = variant
    history = model.history(WIDTH, HEIGHT)
    assert model.plan(history).guide == {"base": CFG(5.0), "mid": CFGZero(5.0, 2), "distilled": None}[name]
    assert model.plan(history, cfg=1.0).guide is None
    assert model.plan(history, cfg=3.0, guidance="cfg").guide == CFG(3.0)
    assert model.plan(history, cfg=3.0, guidance="cfg_zero_star", zero_steps=0).guide == CFGZero(3.0, 0)


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(guidance="apg", cfg=2.0), "guidance 'apg'"),
        (dict(zero_steps=1), "zero_steps 1: only"),
        (dict(zero_steps=1, cfg=3.0, guidance="cfg"), "zero_steps 1: only"),
        (dict(zero_steps=-2, cfg=3.0, guidance="cfg_zero_star"), "zero_steps -2"),
        (dict(cfg=-1.0), "cfg -1"),
        (dict(solver="heun"), "dmd, unipc, euler"),
    ],
)
def test_plans_that_are_refused(tmp_path, options, words):
    model, _ = build("distilled", tmp_path)
    with pytest.raises(ValueError, match=words):
        model.generate(PROMPT, width=WIDTH, height=HEIGHT, **options)


def test_the_shift_clamp_of_training(variant):
    """exp(mu) at most 7: binds above 384x640 only, and never for the linear shift of Distilled."""
    _, model, _ = variant
    plans = [plan_chunk(model.config, 1, shift_clamp=clamp) for clamp in (False, True)]
    stage = model.config.schedule.stages - 1
    small, large = (1, 16, 9, 48, 80), (1, 16, 9, 96, 160)
    free, bound = (plan.stage_steps(stage, small) for plan in plans)
    assert free == bound
    plans = [dataclasses.replace(plan, shift_tokens="after upsample") for plan in plans]
    free, bound = (plan.stage_steps(stage, large) for plan in plans)
    if model.config.schedule.time_shift_type == "linear":
        assert free == bound
        return
    assert bound[1].sigma < free[1].sigma
    plain = dataclasses.replace(model.config.schedule, use_dynamic_shifting=False)
    bare = schedule.steps(plain, stage, plans[0].steps[-1], tokens=1, solver=plans[0].solver)
    for got, step in itertools.islice(zip(bound, bare, strict=True), 1, None):
        assert got.sigma == pytest.approx(schedule.shift_sigma(step.sigma, 7.0), rel=1e-12)


def test_s4_steps_of_each_variant(tmp_path_factory):
    """Without a generation_config.json: 50, 20,20,20 and 2,2,2, with the guidance of the official command line."""
    for name, steps, cfg, solver in (
        ("base", (50,), 5.0, "unipc"),
        ("mid", (20, 20, 20), 5.0, "unipc"),
        ("distilled", (2, 2, 2), 1.0, "dmd"),
    ):
        model, _ = build(name, tmp_path_factory.mktemp(name))
        own = model.config.defaults
        assert (own.steps, own.cfg, own.solver) == (steps, cfg, solver)
        assert own.boost_first_chunk == (name == "distilled")
        history = model.history(WIDTH, HEIGHT)
        assert model.plan(history).total == {"base": 50, "mid": 60, "distilled": 12}[name]


def test_m20_no_guidance_for_distilled_unless_asked(tmp_path):
    model, _ = build("distilled", tmp_path)
    history = model.history(WIDTH, HEIGHT)
    assert model.plan(history).guide is None and model.plan(history, cfg=2.0).guide == CFG(2.0)


def scheduler_config(**options):
    return ScheduleConfig.from_dict({"_class_name": "HeliosScheduler", **options})


ONE = dict(stages=1, stage_range=[0, 1])


@pytest.mark.parametrize(
    "index,options,want",
    [
        (dict(_class_name="HeliosPipeline"), ONE, "base"),
        (dict(_class_name="HeliosPipeline"), {}, "mid"),
        (dict(_class_name="HeliosPipeline"), dict(scheduler_type="dmd"), "distilled"),
        (dict(_class_name="HeliosPipeline"), dict(_class_name="HeliosDMDScheduler"), "distilled"),
        (dict(_class_name="HeliosPyramidPipeline", is_cfg_zero_star=True), {}, "mid"),
        (dict(_class_name="HeliosPyramidPipeline", is_distilled=False), dict(scheduler_type="euler"), "mid"),
        (dict(_class_name="HeliosPyramidPipeline", is_distilled=True), {}, "distilled"),
        (dict(_class_name="HeliosPyramidPipeline"), dict(_class_name="HeliosDMDScheduler"), "distilled"),
    ],
)
def test_d9_variant_by_scheduler_and_flags(index, options, want):
    """Newer files tell by class and flag, older ones name HeliosPipeline for all three."""
    assert find_variant(index, scheduler_config(**options)) == want


@pytest.mark.parametrize(
    "index,options,words",
    [
        (dict(_class_name="WanPipeline"), {}, "'WanPipeline'; wanted HeliosPipeline or HeliosPyramidPipeline"),
        ({}, {}, "pipeline None"),
        (dict(_class_name="HeliosPyramidPipeline"), ONE, "HeliosPyramidPipeline says it is not Base"),
        (dict(_class_name="HeliosPipeline", is_distilled=True), ONE, "is_distilled says it is not Base"),
        (dict(_class_name="HeliosPipeline"), {**ONE, "scheduler_type": "dmd"}, "says it is not Base"),
        (dict(_class_name="HeliosPipeline"), dict(scheduler_type="heun"), "'heun' is not dmd, unipc, euler"),
        (dict(_class_name="HeliosPipeline"), dict(solver_order=3), "solver_order 3 instead of 2"),
        (dict(_class_name="HeliosPipeline"), dict(disable_corrector=[0]), "disable_corrector"),
    ],
)
def test_contradicting_files_are_refused(index, options, words):
    with pytest.raises(ValueError, match=words):
        find_variant(index, scheduler_config(**options))


def test_an_older_distilled_checkpoint_samples_alike(tmp_path):
    """HeliosPipeline with HeliosScheduler of scheduler_type dmd, before either had its own class."""
    model, _ = build("distilled", tmp_path)
    want = run_ours(model, 1)[1][0].latent
    index = tmp_path / "model_index.json"
    raw = json.loads(index.read_text())
    del raw["is_distilled"], raw["is_cfg_zero_star"]
    index.write_text(json.dumps({**raw, "_class_name": "HeliosPipeline"}))
    file = tmp_path / "scheduler" / "scheduler_config.json"
    older = {"_class_name": "HeliosScheduler", "scheduler_type": "dmd"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **older}))
    assert read_folder(tmp_path).schedule == model.config.schedule
    older = load(tmp_path)
    assert older.config == model.config
    assert torch.equal(run_ours(older, 1)[1][0].latent, want)
