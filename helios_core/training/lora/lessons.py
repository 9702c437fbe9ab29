"""The second part, for checkpoints of few steps: the flow objective alone would spoil the steps that distillation made.

The first part's model, sampled in many steps with guidance, shows where each stage ends from its start point: videos of
the folder's captions. The untouched base shows the same in its own few steps for prompts to keep. New pairs beside the
untouched base are regressed on both (few_steps.py of objective/), so they learn what is new and keep the few steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ... import pyramid
from ...history import History
from ...noise import batch_noise
from ...pipeline import Helios
from ...steps import CFG, Plan, plan_chunk
from ..captioned import ClipSet, EncodedClip
from ..files import load_shards
from ..objective import SeededDraws, few_step_loss, stage_points
from ..precision import mixed_precision
from .flow import step_draws

MANY, GUIDANCE = 8, 3.0  # steps per stage of the first part's model, and its guidance
CHUNKS = 2  # of a lesson's video
KEPT = 0.5  # share of the lessons that keep what there was
KEEP_SEED = 10**6  # of the videos of what is kept: other noise than the lessons'


@dataclass(frozen=True)
class Lessons:
    """Per stage start and end points [n c t h w]; the histories, and the number of each one's prompt in `prompts`.

    Rows: by round, chunk, video, of which a round has so many.
    """

    starts: tuple[Tensor, ...]
    ends: tuple[Tensor, ...]
    windows: Tensor
    anchors: Tensor
    said: Tensor
    prompts: list[str]
    videos: int

    def clips(self) -> list[EncodedClip]:
        """The videos as clips to train on."""
        by_chunk = self.ends[-1].float().unflatten(0, (-1, CHUNKS, self.videos))
        said = self.said.view(-1, CHUNKS, self.videos)[:, 0].flatten().tolist()
        videos = torch.cat(by_chunk.unbind(1), dim=3).flatten(0, 1)
        nothing = videos.new_zeros(videos.shape[1], CHUNKS, *videos.shape[3:])
        return [EncodedClip(z, nothing, (self.prompts[i],), from_picture=False) for z, i in zip(videos, said)]


@dataclass
class LessonMaker:
    """Rounds of so many videos by a model as it is now. guide: how prompts and none are mixed, or None. texts: has the
    prompts' rows. size: of the latents (height, width)."""

    helios: Helios
    model: nn.Module
    plan: Plan
    guide: CFG | None
    texts: ClipSet
    prompts: list[str]
    size: tuple[int, int]
    videos: int
    seed: int

    def __call__(self, folder: Path, name: str, rounds: int) -> Lessons:
        """A round per file in the folder; the missing ones are made."""
        parts = list(load_shards(folder, name, rounds, self.round))
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        stages = range(self.plan.schedule.stages)
        starts, ends = (tuple(joined[f"{point}{i}"] for i in stages) for point in ("start", "end"))
        return Lessons(starts, ends, joined["window"], joined["anchor"], joined["said"], self.prompts, self.videos)

    @torch.no_grad()
    def round(self, index: int) -> dict[str, Tensor]:
        """One batch of videos, float16: each prompt as often as any other."""
        said = (torch.arange(self.videos) + index * self.videos) % len(self.prompts)
        captions = [self.prompts[i] for i in said.tolist()]
        texts = [captions] + ([[""] * self.videos] if self.guide is not None else [])
        text = [self.model.text_context(self.texts.embed(one)) for one in texts]
        scale = self.helios.config.vae.scale_factor_spatial
        history, rows = self.helios.history(self.size[1] * scale, self.size[0] * scale, batch=self.videos), []
        for _ in range(CHUNKS):
            starts, ends = self.chunk(text, history, self.seed + index * self.videos)
            empty = history.window.new_zeros(history.window[:, :, :1].shape)
            row = {"window": history.window, "anchor": empty if history.anchor is None else history.anchor}
            row |= {f"start{i}": x for i, x in enumerate(starts)} | {f"end{i}": x for i, x in enumerate(ends)}
            rows.append({name: value.half().cpu() for name, value in row.items()} | {"said": said})
            history = history.append(ends[-1].float().cpu())
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def chunk(self, text: list, history: History, seed: int) -> tuple[list[Tensor], list[Tensor]]:
        """Where the stages of the history's next chunk begin and end."""
        model, plan = self.model, self.plan
        frames, (b, c, h, w) = self.helios.config.defaults.chunk_latent_frames, history.shape
        context, noise = model.history_context(history.parts(frames)), batch_noise(seed, b)

        def predict(x: Tensor, t: float) -> Tensor:
            t = torch.full((1,), t, device=model.device)
            found = [model(x, t, one, context) for one in text]
            return self.guide(*found) if self.guide is not None else found[0]

        def draw(stage: int, shape) -> Tensor:
            return model.array(noise.normal(shape, chunk=history.chunk, stage=stage, use="block"))

        white = model.array(noise.normal((b, c, frames, h, w), chunk=history.chunk))
        return stage_points(predict, pyramid.downsample(white, (2,) * (plan.schedule.stages - 1)), draw, plan)


def few_steps(helios: Helios) -> Plan:
    """How the checkpoint is sampled by itself, without the doubled first chunk: as its lessons are taught."""
    return replace(plan_chunk(helios.config, 0), boost=False, guide=None)


def many_steps(plan: Plan) -> Plan:
    """How the first part's model is sampled: as flow models are."""
    schedule = replace(plan.schedule, scheduler_type="euler", use_dynamic_shifting=False)
    return Plan(schedule, (MANY,) * schedule.stages, "euler", patch=plan.patch)


@dataclass
class FewStepObjective:
    """The loss of a step, as `fit` takes it. sets: lessons with the share of the samples that each gives."""

    model: nn.Module
    sets: list[tuple[Lessons, float]]
    texts: ClipSet
    plan: Plan
    batch: int
    seed: int = 0
    bf16: bool = True

    def __call__(self, step: int) -> dict[str, Tensor]:
        """loss, and that of each stage."""
        draws, losses = step_draws(self.seed, step), []
        with mixed_precision(self.model.device, on=self.bf16):
            for stage in range(self.plan.schedule.stages):
                which = int(draws.choose([share for _, share in self.sets], 1))
                losses.append(self.stage(self.sets[which][0], stage, draws))
        return {"loss": sum(losses), **{f"stage{i}": loss for i, loss in enumerate(losses)}}

    def stage(self, lessons: Lessons, stage: int, draws: SeededDraws) -> Tensor:
        """Of one stage, on a batch of lessons, their pasts with errors."""
        model, device = self.model, self.model.device
        pick = draws.pick(len(lessons.said), self.batch)
        window, anchor = (draws.corrupt(x[pick].float()).to(device) for x in (lessons.windows, lessons.anchors))
        frames = lessons.ends[-1].shape[2]
        text = model.text_context(self.texts.embed([lessons.prompts[i] for i in lessons.said[pick].tolist()]))
        context = model.history_context(History(window, anchor).parts(frames))
        start, end = (points[stage][pick].float().to(device) for points in (lessons.starts, lessons.ends))
        return few_step_loss(lambda x, t: model(x, t, text, context), self.plan, stage, start, end)


def captions_to_keep(helios: Helios, file: Path | None, count: int) -> list[str]:
    """Prompts whose videos shall stay: of a file, a line each; of helios-tiny, of its vocabulary; else none.

    ValueError for a file without any.
    """
    from ...drawn import random_scene
    from ...pipeline import TINY

    if file is not None:
        found = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if not found:
            raise ValueError(f"--keep {file}: holds no prompts; wanted one per line")
        return found
    if helios.checkpoint.path != TINY:
        return []
    rng = np.random.default_rng(77)
    scenes = [random_scene(rng, held_out=False) for _ in range(count)]
    return list(dict.fromkeys(scene.caption(i % 3) for i, scene in enumerate(scenes)))
