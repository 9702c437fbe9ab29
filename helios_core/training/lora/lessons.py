"""How checkpoints of few steps are taught: the flow objective alone would spoil what distillation made of them.

A step of theirs estimates from a stage's start point where the stage ends. From the second stage on, the start point of
a clip shows where all is that moves, so its end point has one answer nearly, and the steps are regressed on the clips
themselves. At the first stage, which begins with noise alone, many clips are as near, and their mean would be learnt:
there a flow model, the same base with pairs of its own, is trained first, and where it arrives from the noise in many
guided steps is the answer. Of prompts to keep, the untouched base says where its own steps lead. What learns are new
pairs beside the untouched base, so that the few steps are there from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ... import pyramid
from ...config import ScheduleConfig
from ...history import History
from ...noise import batch_noise
from ...pipeline import Helios
from ...steps import CFG, Plan, plan_chunk, schedule
from ..captioned import ClipSet, EncodedClip, Sample
from ..files import load_shards
from ..objective import SeededDraws, few_step_loss, flow_pair, stage_points
from ..precision import mixed_precision
from .flow import step_draws

MANY, GUIDANCE = 8, 3.0  # steps of the first part's model at its stage, and its guidance
CHUNKS = 2  # of a lesson's video
KEPT = 0.4  # share of the lessons that keep what there was
FIRST_LESSON = 10**8  # of the draws of lessons: no step gets there
KEEP_SEED = 10**6  # of the videos of what is kept: other noise than the lessons'


@dataclass(frozen=True)
class KeptLessons:
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
class KeptMaker:
    """Rounds of so many videos by the untouched base in its own few steps. texts: has the prompts' rows. size: of the
    latents (height, width)."""

    helios: Helios
    model: nn.Module
    plan: Plan
    texts: ClipSet
    prompts: list[str]
    size: tuple[int, int]
    videos: int

    def __call__(self, folder: Path, rounds: int) -> KeptLessons:
        """A round per file in the folder; the missing ones are made."""
        parts = list(load_shards(folder, "kept", rounds, self.round))
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        stages = range(self.plan.schedule.stages)
        starts, ends = (tuple(joined[f"{point}{i}"] for i in stages) for point in ("start", "end"))
        return KeptLessons(starts, ends, joined["window"], joined["anchor"], joined["said"], self.prompts, self.videos)

    @torch.no_grad()
    def round(self, index: int) -> dict[str, Tensor]:
        """One batch of videos, float16: each prompt as often as any other."""
        said = (torch.arange(self.videos) + index * self.videos) % len(self.prompts)
        text = self.model.text_context(self.texts.embed([self.prompts[i] for i in said.tolist()]))
        scale = self.helios.config.vae.scale_factor_spatial
        history, rows = self.helios.history(self.size[1] * scale, self.size[0] * scale, batch=self.videos), []
        for _ in range(CHUNKS):
            starts, ends = self.chunk(text, history, KEEP_SEED + index * self.videos)
            empty = history.window.new_zeros(history.window[:, :, :1].shape)
            row = {"window": history.window, "anchor": empty if history.anchor is None else history.anchor}
            row |= {f"start{i}": x for i, x in enumerate(starts)} | {f"end{i}": x for i, x in enumerate(ends)}
            rows.append({name: value.half().cpu() for name, value in row.items()} | {"said": said})
            history = history.append(ends[-1].float().cpu())
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def chunk(self, text, history: History, seed: int) -> tuple[list[Tensor], list[Tensor]]:
        """Where the stages of the history's next chunk begin and end."""
        model, plan = self.model, self.plan
        frames, (b, c, h, w) = self.helios.config.defaults.chunk_latent_frames, history.shape
        context, noise = model.history_context(history.parts(frames)), batch_noise(seed, b)

        def predict(x: Tensor, t: float) -> Tensor:
            return model(x, torch.full((1,), t, device=model.device), text, context)

        def draw(stage: int, shape) -> Tensor:
            return model.array(noise.normal(shape, chunk=history.chunk, stage=stage, use="block"))

        white = model.array(noise.normal((b, c, frames, h, w), chunk=history.chunk))
        return stage_points(predict, pyramid.downsample(white, (2,) * (plan.schedule.stages - 1)), draw, plan)


@dataclass(frozen=True)
class FirstLessons:
    """Of the first stage: start and end points [n c t h w], histories, what was said of each."""

    starts: Tensor
    ends: Tensor
    windows: Tensor
    anchors: Tensor
    said: list[str]


@dataclass
class FirstMaker:
    """Rounds of so many lessons by the first part's flow model, on the clips' own pasts."""

    model: nn.Module
    clips: ClipSet
    schedule: ScheduleConfig
    videos: int
    seed: int

    def __call__(self, folder: Path, rounds: int) -> FirstLessons:
        """A round per file in the folder; the missing ones are made."""
        captions = self.captions()
        parts = list(load_shards(folder, "first", rounds, self.round))
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        said = [captions[i] for i in joined.pop("said").tolist()]
        return FirstLessons(joined["start"], joined["end"], joined["window"], joined["anchor"], said)

    def captions(self) -> list[str]:
        """All there are, each once."""
        return list(dict.fromkeys(text for clip in self.clips.clips for text in clip.captions))

    @torch.no_grad()
    def round(self, index: int) -> dict[str, Tensor]:
        """One batch."""
        draws, model = step_draws(self.seed, FIRST_LESSON + index), self.model
        sample = self.clips.draw(draws, self.videos)
        levels = (2,) * (self.schedule.stages - 1)
        start = pyramid.downsample(draws.randn(*sample.chunk.shape), levels).to(model.device)
        end = self.follow(start, sample)
        numbers = {text: i for i, text in enumerate(self.captions())}
        row = {"start": start, "end": end, "window": sample.history.window, "anchor": sample.history.anchor}
        said = torch.tensor([numbers[text] for text in sample.said])
        return {name: value.cpu() for name, value in row.items()} | {"said": said}

    def follow(self, start: Tensor, sample: Sample) -> Tensor:
        """The stage's end, in many guided steps of Euler's."""
        model, guide, x = self.model, CFG(GUIDANCE), start
        texts = [model.text_context(text) for text in (sample.text, self.clips.embed([""] * len(start)))]
        context = model.history_context(sample.history.parts(start.shape[2]))
        schedule = replace(self.schedule, scheduler_type="euler", use_dynamic_shifting=False)
        for step in Plan(schedule, (MANY,) * schedule.stages, "euler").stage_steps(0, start.shape):
            t = torch.full((1,), float(int(step.t)), device=model.device)
            x = x + (step.sigma_next - step.sigma) * guide(*(model(x, t, text, context) for text in texts))
        return x


def few_steps(helios: Helios) -> Plan:
    """How the checkpoint is sampled by itself, without the doubled first chunk: as its lessons are taught."""
    return replace(plan_chunk(helios.config, 0), boost=False, guide=None)


@dataclass
class FewStepObjective:
    """The loss of a step, as `fit` takes it: stages on clips, the first on its lessons, all on what is to be kept."""

    model: nn.Module
    clips: ClipSet
    first: FirstLessons
    kept: KeptLessons | None
    plan: Plan
    batch: int
    seed: int = 0
    bf16: bool = True

    def __call__(self, step: int) -> dict[str, Tensor]:
        """loss, and that of each stage."""
        draws, losses = step_draws(self.seed, step), []
        with mixed_precision(self.model.device, on=self.bf16):
            for stage in range(self.plan.schedule.stages):
                keep = bool(draws.rand(1) < KEPT) and self.kept is not None
                make = self.of_kept if keep else self.of_clips if stage else self.of_first
                text, history, start, end = make(stage, draws)
                losses.append(self.stage(stage, text, history, start, end))
        return {"loss": sum(losses), **{f"stage{i}": loss for i, loss in enumerate(losses)}}

    def of_clips(self, stage: int, draws: SeededDraws) -> tuple:
        """Of clips: (text, history, start, end)."""
        sample, schedule_of = self.clips.draw(draws, self.batch), self.plan.schedule
        noise = draws.randn(*sample.chunk.shape).to(sample.chunk.device)
        row = schedule.stages(schedule_of)[stage]
        return sample.text, sample.history, *flow_pair(row, sample.chunk, noise, schedule_of.stages - 1)

    def of_first(self, stage: int, draws: SeededDraws) -> tuple:
        """Of the first stage's lessons."""
        pick, known = draws.pick(len(self.first.said), self.batch), self.first
        history = History(known.windows[pick], known.anchors[pick])
        text = self.clips.embed([known.said[i] for i in pick.tolist()])
        return text, history, known.starts[pick], known.ends[pick]

    def of_kept(self, stage: int, draws: SeededDraws) -> tuple:
        """Of what is to be kept, its pasts with errors."""
        known = self.kept
        pick = draws.pick(len(known.said), self.batch)
        history = History(*(draws.corrupt(x[pick].float()) for x in (known.windows, known.anchors)))
        text = self.clips.embed([known.prompts[i] for i in known.said[pick].tolist()])
        return text, history, known.starts[stage][pick].float(), known.ends[stage][pick].float()

    def stage(self, stage: int, text, history: History, start: Tensor, end: Tensor) -> Tensor:
        """Of one stage."""
        model, device = self.model, self.model.device
        history = replace(history, window=history.window.to(device), anchor=history.anchor.to(device))
        words, context = model.text_context(text), model.history_context(history.parts(start.shape[2]))
        predict = lambda x, t: model(x, t, words, context)  # noqa: E731
        return few_step_loss(predict, self.plan, stage, start.to(device), end.to(device))


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
