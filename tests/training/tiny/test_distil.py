"""Distilling helios-tiny: its lessons and the loss on them."""

import copy
from dataclasses import replace

import pytest
import torch
from helios_video.helios_core.history.window import History
from helios_video.helios_core.training import loop
from helios_video.helios_core.training.tiny import distil
from helios_video.helios_core.training.tiny.teacher import SCHEDULE, Tiny


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
    recipe = loop.Recipe(steps=4, lr=3e-4, muon=1e-3, warmup=1, decay=0.5, ema=0.5, log_every=1)
    distil.distil(copy.deepcopy(teacher), made, tmp_path, recipe)
    rows = (tmp_path / "tiny_distilled.csv").read_text().splitlines()
    losses = [float(row.split(",")[2]) for row in rows[1:]]
    assert losses[-1] < losses[0]
