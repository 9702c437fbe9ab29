"""Distils helios-tiny to the two DMD steps per stage of the published Distilled checkpoint, without guidance.

What is taught: a stage's guided many-step solution is a fixed map from the stage's start point, history and prompt to
its end point, since nothing random happens in between. The student's first DMD step estimates that end point from the
start point, its second one from the start point mixed with its own first estimate; both are regressed on where the
teacher arrived. A regression is enough, for each start point has one answer: nothing is averaged, so nothing blurs.
The stages are taught one by one, from the teacher's own start points, and on the teacher's own videos, so that the
history is one that inference meets; it is noised as in the teacher's training, so that the student, too, lives with
small errors in its past. Some lessons get another video's end as the past before their own beginning: what the teacher
made from nothing is the answer there too, so where prompt and past disagree the student follows the prompt, with a cut.
The second step's sigma follows the dynamic shift of the published Distilled schedule, with
limits that fit this model's 9 to 144 tokens.

Sources of the idea: stage-wise ODE initialisation before distribution matching (Helios; CausVid, arXiv 2412.07772).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ... import pyramid
from ...history import History
from ...noise import Noise
from ...steps import CFG, Plan
from ..files import load_shards
from ..loop import Recipe, fit
from ..objective import few_step_loss, stage_points
from ..precision import mixed_precision
from . import teacher

TEACHER = Plan(teacher.SCHEDULE, (8, 8, 8), "euler")
GUIDANCE = 3.0
SCHEDULE = replace(teacher.SCHEDULE, scheduler_type="dmd", use_dynamic_shifting=True, time_shift_type="linear")
SCHEDULE = replace(SCHEDULE, base_image_seq_len=9, max_image_seq_len=144, base_shift=1.0, max_shift=2.0)
STUDENT = Plan(SCHEDULE, (2, 2, 2), "dmd")
FEW_STEPS = teacher.Sampling(SCHEDULE, {"solver": "dmd", "steps": [2, 2, 2], "cfg": 1.0})
BATCH, IMAGES, CHUNKS = 24, 4, 3  # videos that the teacher makes at a time, those of them from an image, their length
IMAGE_SIGMA = 0.12  # noise on the past of an image start, as at inference
CUTS = 0.25  # share of the lessons that are put behind another video, where both allow it
RECIPE = Recipe(900, lr=3e-4, muon=1e-3, warmup=50, decay=0.8, ema=0.995)


@dataclass(frozen=True)
class Lessons:
    """What the teacher did: per stage its start and end points [n c t h w]; the histories and the caption ids."""

    starts: tuple[Tensor, ...]
    ends: tuple[Tensor, ...]
    windows: Tensor
    anchors: Tensor
    ids: Tensor


@torch.inference_mode()
def teach(model: teacher.Tiny, ids: Tensor, empty: Tensor, seed: int, history: History) -> tuple[dict, Tensor]:
    """One guided chunk of the teacher for captions [n m]: ({stage: (start, end)}, the chunk)."""
    net = model.transformer
    text, none = (net.text_context(model.encode(i.to(net.device))) for i in (ids, empty.expand(len(ids), -1)))
    context, guide, noise = net.history_context(history.parts(teacher.CHUNK)), CFG(GUIDANCE), Noise(seed)

    def predict(x, t):
        return guide(net.velocity(x, t, text, context), net.velocity(x, t, none, context))

    def draw(stage, shape):
        return net.array(noise.normal(shape, chunk=history.chunk, stage=stage, use="block"))

    b, c, h, w = history.shape
    white = net.array(noise.normal((b, c, teacher.CHUNK, h, w), chunk=history.chunk))
    starts, ends = stage_points(predict, pyramid.downsample(white, (2, 2)), draw, TEACHER)
    return dict(enumerate(zip(starts, ends, strict=True))), ends[-1]


def make_lessons(model: teacher.Tiny, clips: teacher.CaptionedClips, folder: Path, rounds: int) -> Lessons:
    """The teacher's videos to the captions of clips, a batch per file in `folder`; the missing ones are made."""
    parts = list(load_shards(folder, "lessons", rounds, lambda index: make_round(model, clips, index)))
    joined = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    starts, ends = (tuple(joined[f"{point}{i}"] for i in range(teacher.SCHEDULE.stages)) for point in ("start", "end"))
    return Lessons(starts, ends, joined["window"], joined["anchor"], joined["ids"])


def make_round(model: teacher.Tiny, clips: teacher.CaptionedClips, index: int) -> dict[str, Tensor]:
    """One batch of the teacher's videos, float16; the first ones begin with an image."""
    batches, rows = teacher.Batches(clips, seed=index), []
    pick = batches.pick(len(clips.latents), BATCH)
    ids = clips.captions[pick, batches.pick(clips.captions.shape[1], BATCH)]
    image = (torch.arange(BATCH) < IMAGES).view(-1, 1, 1, 1, 1)
    noised = lambda z: (1 - IMAGE_SIGMA) * z + IMAGE_SIGMA * batches.randn(*z.shape) * (z != 0)  # noqa: E731
    history = History(image * noised(clips.still_window(pick, 0)), image * noised(clips.latents[pick, :, :1]))
    for chunk in range(CHUNKS):
        stages, latent = teach(model, ids, clips.empty, 1000 * index + chunk, history)
        row = {"window": history.window, "anchor": history.anchor}
        row |= {f"start{i}": start for i, (start, _) in stages.items()}
        row |= {f"end{i}": end for i, (_, end) in stages.items()}
        rows.append({name: value.cpu().half() for name, value in row.items()} | {"ids": ids})
        anchor = history.anchor if chunk else torch.where(image, history.anchor, latent[:, :, :1].cpu())
        history = replace(history.append(latent.cpu()), anchor=anchor)
    return {name: torch.cat([row[name] for row in rows]).clone() for name in rows[0]}


def after_another(history: History, cut: Tensor) -> History:
    """Where cut [n] says so, the video before (the last one before the first) fills what a history has not yet seen.

    Its anchor goes with it, as in a run whose prompt changed. Left as they are: videos that began with an image, and
    those whose neighbour has no past either.
    """
    window, (before, anchor) = history.window, (part.roll(1, 0) for part in (history.window, history.anchor))
    known = (window != 0).flatten(3).any(-1).any(1).sum(1)
    cut = cut & (known % teacher.CHUNK == 0) & (anchor != 0).flatten(1).any(1)
    frames = torch.arange(window.shape[2], device=window.device)
    shifted = before.gather(2, _like((frames + known[:, None]) % len(frames), before))
    unseen = frames < len(frames) - known[:, None]
    window = torch.where(_like(unseen & cut[:, None], window), shifted, window)
    return History(window, torch.where(_like(cut[:, None], anchor), anchor, history.anchor))


def _like(frames: Tensor, latents: Tensor) -> Tensor:
    """[n t] as [n c t h w]."""
    return frames[:, None, :, None, None].expand(-1, latents.shape[1], -1, *latents.shape[3:])


def pasts(lessons: Lessons, pick: Tensor, batches: teacher.Batches) -> History:
    """The histories of a batch: some behind another video, all with noise."""
    history = History(lessons.windows[pick].float(), lessons.anchors[pick].float())
    history = after_another(history, batches.rand(len(pick)) < CUTS)
    return replace(history, window=batches.corrupt(history.window), anchor=batches.corrupt(history.anchor))


def stage_loss(model: teacher.Tiny, lessons: Lessons, stage: int, pick: Tensor, past: History) -> Tensor:
    """Squared error of both steps' estimates of the end point, relative to how far it is from the start point."""
    net = model.transformer
    start, end = (points[stage][pick].float().to(net.device) for points in (lessons.starts, lessons.ends))
    past = replace(past, window=past.window.to(net.device), anchor=past.anchor.to(net.device))
    text = net.text_context(model.encode(lessons.ids[pick].to(net.device)))
    context = net.history_context(past.parts(teacher.CHUNK))
    return few_step_loss(lambda x, t: net(x, t, text, context), STUDENT, stage, start, end)


def distil(
    model: teacher.Tiny, lessons: Lessons, folder: Path, recipe: Recipe = RECIPE, *, device="cpu", compiled=False
) -> teacher.Tiny:
    """The student, on the CPU, trained on from the teacher's weights; checkpoints and the log in `folder`."""
    model = teacher.trainable(model, device, compiled)

    def loss(step: int) -> dict:
        batches = teacher.Batches(None, seed=step)
        with mixed_precision(device):
            picks = [batches.pick(len(lessons.ids), n) for n in teacher.BATCHES]
            losses = [stage_loss(model, lessons, i, p, pasts(lessons, p, batches)) for i, p in enumerate(picks)]
        return {"loss": sum(losses), **{f"stage{i}": value for i, value in enumerate(losses)}}

    return teacher.finished(fit(model, loss, recipe, folder / "tiny_distilled.pt"))
