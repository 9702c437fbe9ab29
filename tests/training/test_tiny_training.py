"""The training code: objective, history corruption, resuming, and the folder it writes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video.helios_core import pyramid
from helios_video.helios_core.drawn.scenes import COLOURS, draw, random_scene, scene
from helios_video.helios_core.history.window import History
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.training import loop
from helios_video.helios_core.training.tiny import distil, files
from helios_video.helios_core.training.tiny.teacher import (
    MANY_STEPS,
    MAX_HISTORY_NOISE,
    SCHEDULE,
    TEXT,
    Batches,
    Clips,
    Tiny,
    flow_pair,
    stage_loss,
    tokenise,
    write_checkpoint,
)
from helios_video.helios_core.training.tiny.vae import CONFIG, WanVAE, initialise, to_video
from PIL import Image

STAGES = schedule.stages(SCHEDULE)


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    tokenizer = files.build_tokenizer(TEXT["vocab_size"])
    scenes = [random_scene(np.random.default_rng(i)) for i in range(6)]
    ids = torch.stack([tokenise(tokenizer, [s.caption(v) for v in range(3)]) for s in scenes])
    latents = torch.randn(6, 16, 36, 8, 8, generator=generator)
    stills = torch.randn(6, 16, 4, 8, 8, generator=generator)
    return Clips(latents, stills, ids, tokenise(tokenizer, [""]))


def test_stage_end_points_meet_the_next_stage():
    """Upsampling a stage's end point and adding block noise gives the next stage's start point in distribution."""
    clean, noise = torch.randn(1, 16, 9, 32, 32) * 0, torch.randn(1, 16, 9, 32, 32)
    for low, high in zip(STAGES, STAGES[1:]):
        _, end = flow_pair(low, clean, noise, 2)
        jumped = high.alpha * pyramid.upsample(end)
        jumped = jumped + high.beta * pyramid.block_noise(torch.randn(jumped.shape), SCHEDULE.gamma)
        start, _ = flow_pair(high, clean, noise, 2)
        assert abs(float(jumped.std() / start.std()) - 1) < 0.03


def test_signal_share_across_the_jump_is_that_of_the_start_point():
    clean = torch.ones(1, 16, 9, 32, 32)
    for low, high in zip(STAGES, STAGES[1:]):
        _, end = flow_pair(low, clean, clean * 0, 2)
        start, _ = flow_pair(high, clean, clean * 0, 2)
        torch.testing.assert_close(high.alpha * pyramid.upsample(end), start)


def test_last_end_point_is_the_clean_latent():
    clean = torch.randn(1, 16, 9, 8, 8)
    _, end = flow_pair(STAGES[-1], clean, torch.randn_like(clean), 2)
    assert torch.equal(end, clean)


def test_corruption_leaves_absent_history_at_zero_and_bounds_the_noise(clips):
    batches = Batches(clips, 0)
    frames = torch.ones(8, 16, 19, 8, 8)
    frames[:, :, :10] = 0
    out = batches.corrupt(frames)
    assert not out[:, :, :10].any()
    assert out[:, :, 10:].std() > 0.01
    assert (out[:, :, 10:].mean((1, 3, 4)) > 1 - MAX_HISTORY_NOISE - 0.1).all()


def test_batches_pair_a_chunk_with_its_own_past(clips):
    batches = Batches(clips, 3)
    batches.corrupt = lambda frames: frames
    chunk, history, _ = batches.draw(64)
    images = 0
    for i in range(64):
        clip, place = next(
            (c, k) for c in range(6) for k in range(4) if torch.equal(clips.latents[c, :, 9 * k : 9 * k + 9], chunk[i])
        )
        past = History(torch.zeros(1, 16, 19, 8, 8))
        still = clips.stills[clip, :, place]
        if torch.equal(history.window[i, :, -1], still):  # an image start: the chunk's first picture, held still
            assert not history.window[i, :, :-1].any() and torch.equal(history.anchor[i, :, 0], chunk[i, :, 0])
            images += 1
            continue
        for k in range(place):
            past = past.append(clips.latents[clip : clip + 1, :, 9 * k : 9 * k + 9])
        assert torch.equal(history.window[i], past.window[0])
        anchor = torch.zeros(16, 1, 8, 8) if past.anchor is None else past.anchor[0]
        assert torch.equal(history.anchor[i], anchor)
    assert 1 <= images <= 20


def test_loss_has_gradients_everywhere(clips):
    model = Tiny()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    sum(stage_loss(model, Batches(clips, 0), stage, 2) for stage in STAGES).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_rates_warm_up_stay_and_fall():
    recipe = loop.Recipe(steps=1000, warmup=100, decay=0.3)
    assert [round(recipe.rate(step), 2) for step in (0, 49, 100, 500, 729, 999)] == [0.01, 0.5, 1, 1, 1, 0.02]
    assert 0.4 < recipe.rate(865) < 0.6


def test_muon_gets_the_matrices_of_blocks_and_nothing_else():
    model = Tiny()
    adamw, muon = loop.optimisers(model, loop.Recipe(steps=1, muon=1e-3))
    inside = {id(p) for n, p in model.transformer.blocks.named_parameters() if p.ndim == 2}
    assert {id(p) for p in muon.param_groups[0]["params"]} >= inside
    assert all(p.ndim == 2 for p in muon.param_groups[0]["params"])
    counts = [sum(p.numel() for p in o.param_groups[0]["params"]) for o in (adamw, muon)]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert len(loop.optimisers(model, loop.Recipe(steps=1))) == 1


def test_a_stopped_training_resumes_where_it_was(tmp_path):
    def run(folder, stops):
        model = torch.nn.Linear(3, 1)
        torch.nn.init.ones_(model.weight)
        torch.nn.init.zeros_(model.bias)

        def loss(step):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            return {"loss": (model(x) - x.sum(1, keepdim=True) * 2).square().mean()}

        for last in stops:
            recipe = loop.Recipe(steps=40, lr=0.05, warmup=2, ema=0.5, save_every=20, log_every=10)
            loop.fit(model, Interrupted(loss, last), recipe, folder / "x.pt")
        return model.weight.detach().clone()

    class Interrupted:
        def __init__(self, loss, last):
            self.loss, self.last = loss, last

        def __call__(self, step):
            if step == self.last:
                raise KeyboardInterrupt
            return self.loss(step)

    whole = run(tmp_path / "a", [99])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", [33])
    torch.testing.assert_close(run(tmp_path / "b", [99]), whole)
    rows = (tmp_path / "b" / "x.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss" and [row.split(",")[0] for row in rows[1:]] == ["10", "20", "30", "40"]
    with Image.open(tmp_path / "b" / "x.png") as picture:
        assert (np.asarray(picture.convert("RGB")) == (0, 114, 178)).all(-1).sum() > 200  # the curve's colour


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [(MANY_STEPS, ("mid", "euler", 3.0)), (distil.FEW_STEPS, ("distilled", "dmd", 1.0))],
)
def test_written_folder_opens_and_samples(tmp_path, sampling, wanted):
    from helios_video.helios_core import load

    torch.manual_seed(0)
    tokenizer = files.build_tokenizer(TEXT["vocab_size"])
    vae = WanVAE(CONFIG)
    initialise(vae)
    write_checkpoint(tmp_path / "t", Tiny(), vae, tokenizer, ([0.0] * 16, [1.0] * 16), sampling)
    helios = load(tmp_path / "t")
    assert (helios.config.variant, helios.config.defaults.solver, helios.config.defaults.cfg) == wanted
    assert helios.config.schedule == sampling.schedule
    steps = list(helios.sample(helios.history(64, 64), helios.text("a red circle"), seed=0, steps=(1, 1, 1)))
    assert steps[-1].latent.shape == (1, 16, 9, 8, 8)
    assert helios.decode(steps[-1].latent).shape == (33, 64, 64, 3)


def test_untrained_vae_already_tells_colours_apart():
    """The near-linear start: pictures that differ in colour alone have different latents before any training."""
    torch.manual_seed(0)
    vae = WanVAE(CONFIG).eval()
    initialise(vae)
    video = to_video(np.stack([draw(scene(c, "circle", "up", "plain"), 1) for c in COLOURS]))
    with torch.inference_mode():
        latent = vae.encode(video)[0]
    assert latent.flatten(1).std(0).mean() > 0.05


@pytest.fixture(scope="module")
def lessons(clips, tmp_path_factory):
    """Two batches of a teacher with random weights and one step per stage, whose answers the student can know."""
    patch = pytest.MonkeyPatch()
    patch.setattr(distil, "TEACHER", distil.Plan(SCHEDULE, (2, 2, 2), "euler"))
    for name, value in {"BATCH": 3, "IMAGES": 1, "CHUNKS": 2}.items():
        patch.setattr(distil, name, value)
    torch.manual_seed(0)
    teacher = Tiny().eval()
    torch.nn.init.normal_(teacher.transformer.proj_out.weight, std=0.05)
    folder = tmp_path_factory.mktemp("lessons")
    made = distil.make_lessons(teacher, clips, folder, rounds=2)
    patch.setattr(distil, "make_round", None)  # what lies in the folder is not made again
    again = distil.make_lessons(teacher, clips, folder, rounds=2)
    patch.undo()
    assert torch.equal(again.ends[2], made.ends[2])
    return teacher, made


def test_lessons_hold_every_stage_and_the_history_before_it(lessons):
    _, made = lessons
    assert [tuple(s.shape) for s in made.starts] == [(12, 16, 9, n, n) for n in (2, 4, 8)]
    assert [s.shape for s in made.ends] == [s.shape for s in made.starts]
    image, first, second = 0, slice(1, 3), slice(4, 6)
    assert not made.windows[first].any() and not made.anchors[first].any()
    assert made.windows[image, :, -1].any() and not made.windows[image, :, :-1].any()
    assert torch.equal(made.windows[3:6][:, :, -9:], made.ends[2][:3])
    assert torch.equal(made.anchors[second], made.ends[2][first][:, :, :1])
    assert made.anchors[image].any() and torch.equal(made.anchors[3], made.anchors[image])
    assert torch.equal(made.ids[:3], made.ids[3:6])


def test_a_lesson_behind_another_video_keeps_its_own_past():
    window = torch.zeros(4, 1, 19, 1, 1)
    for row, (known, value) in enumerate([(18, 1.0), (0, 0.0), (9, 3.0), (10, 4.0)]):  # the last began with an image
        window[row, :, 19 - known :] = value
    anchor = torch.tensor([1.0, 0.0, 3.0, 4.0]).view(4, 1, 1, 1, 1)
    cut = distil.after_another(History(window, anchor), torch.ones(4, dtype=torch.bool))
    assert cut.window.flatten(1).tolist() == [[4.0] + [1.0] * 18, [0.0] + [1.0] * 18, [0.0] * 10 + [3.0] * 9,
                                              [0.0] * 9 + [4.0] * 10]  # fmt: skip
    assert cut.anchor.flatten().tolist() == [4.0, 1.0, 3.0, 4.0]
    same = distil.after_another(History(window, anchor), torch.zeros(4, dtype=torch.bool))
    assert torch.equal(same.window, window) and torch.equal(same.anchor, anchor)


def test_a_student_that_knows_the_answer_has_no_loss(lessons):
    """With an end point that the network's own first step gives, the first step's share of the loss is zero."""
    teacher, made = lessons
    pick = torch.arange(4)
    with torch.no_grad():
        past = History(made.windows[pick].float(), made.anchors[pick].float())
        lost = [float(distil.stage_loss(teacher, made, i, pick, past)) for i in range(3)]
    assert all(0 < value < 10 for value in lost)
    step = distil.STUDENT.stage_steps(0, made.starts[0].shape)[0]
    start = made.starts[0][pick].float()
    with torch.no_grad():
        text = teacher.transformer.text_context(teacher.encode(made.ids[pick]))
        context = teacher.transformer.history_context(past.parts(9))
        end = start - step.sigma * teacher.transformer(start, torch.tensor([float(int(step.t))]), text, context)
        known = replace(made, ends=(end, *made.ends[1:]), starts=(start, *made.starts[1:]))
        assert float(distil.stage_loss(teacher, known, 0, pick, past)) < lost[0]


def test_distilling_lowers_the_loss(lessons, tmp_path):
    teacher, made = lessons
    recipe = loop.Recipe(steps=12, lr=3e-4, muon=1e-3, warmup=2, decay=0.5, ema=0.5, log_every=4)
    distil.distil(copy.deepcopy(teacher), made, tmp_path, recipe)
    rows = (tmp_path / "tiny_distilled.csv").read_text().splitlines()
    losses = [float(row.split(",")[2]) for row in rows[1:]]
    assert losses[-1] < losses[0]
