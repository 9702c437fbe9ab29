"""The loss of a control adapter: what the checkpoint is sampled by, with control tokens beside the noise.

A checkpoint of few DMD steps is regressed on where each stage ends. Without a control that would blur, for many videos
fit one prompt; with one the video is all but determined: where and how large by the control, what by the prompt.
Others have the pyramid flow objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...backends.torch.transformer import HeliosTransformer
from ...config import ModelConfig
from ...control import levels
from ...steps import Plan, plan_chunk, schedule
from ..captioned import ClipSet, Sample
from ..objective import SeededDraws, flow_loss, flow_pair
from ..precision import mixed_precision
from .adapter import TrainedAdapter


@dataclass
class ControlledClips(ClipSet):
    """Clips with control latents [c t h w] each, normalised, as long as the clip."""

    controls: list[Tensor] = field(default_factory=list)

    def controls_of(self, sample: Sample) -> Tensor:
        """The control latents [b c t h w] of a batch's chunks."""
        n = self.frames
        parts = [self.controls[i][:, k * n : (k + 1) * n] for i, k in zip(sample.pick, sample.place.tolist())]
        return torch.stack(parts).to(self.device)

    def _places(self, draws: SeededDraws, clips) -> tuple[Tensor, Tensor]:
        place, image = super()._places(draws, clips)
        return place, image & torch.tensor([clip.stills.shape[1] > 0 for clip in clips])


@dataclass(frozen=True)
class ControlObjective:
    """transformer: frozen, with the adapter's LoRA in it. policy: how control goes down the pyramid. batch: samples of
    a step. drop: share of the samples that go without control."""

    transformer: HeliosTransformer
    adapter: TrainedAdapter
    clips: ControlledClips
    config: ModelConfig
    policy: str
    batch: int
    drop: float = 0.0
    seed: int = 0

    def __call__(self, step: int) -> dict[str, Tensor]:
        """The loss and each stage's, as `loop.fit` takes them."""
        draws = SeededDraws(self.seed * 1_000_003 + step)
        sample = self.clips.draw(draws, self.batch)
        keep = (draws.rand(self.batch) >= self.drop).float().to(sample.chunk.device)
        parts = levels(self.clips.controls_of(sample), self.config.schedule.stages, self.policy)
        beside = tuple(self.adapter.tokens(z, keep) for z in parts)
        with mixed_precision(sample.chunk.device, on=sample.chunk.device.type != "cpu"):
            losses = self.stage_losses(sample, beside, draws)
        return {"loss": sum(losses), **{f"stage{i}": value for i, value in enumerate(losses)}}

    def stage_losses(self, sample: Sample, beside: tuple, draws: SeededDraws) -> list[Tensor]:
        """Of every stage, all of one batch. beside: the control tokens of each."""
        net, plan = self.transformer, plan_chunk(self.config, 1)
        past = sample.history.parts(self.config.defaults.chunk_latent_frames)._replace(control=beside)
        text, history = net.text_context(sample.text), net.history_context(past)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return net(x, t, text, history)

        if plan.solver == "dmd":
            return few_steps(predict, plan, sample.chunk, draws)
        return [flow_loss(predict, plan.schedule, i, sample.chunk, draws) for i in range(plan.schedule.stages)]


def few_steps(predict: Callable, plan: Plan, clean: Tensor, draws: SeededDraws) -> list[Tensor]:
    """Of every stage one step's squared error, on start and end points of clean latents and one noise [b c t h w].

    Which step is drawn: all of them in every update would cost twice as much and teach hardly more.
    """
    noise, last, losses = draws.randn(*clean.shape).to(clean.device), plan.schedule.stages - 1, []
    for row in schedule.stages(plan.schedule):
        start, end = flow_pair(row, clean, noise, last)
        steps = plan.stage_steps(row.index, start.shape)
        which = int(draws.pick(len(steps), 1))
        losses.append(step_loss(predict, steps[: which + 1], start, end))
    return losses


def step_loss(predict: Callable, steps: list, start: Tensor, end: Tensor) -> Tensor:
    """Squared error of the last of the steps' estimate of the end point, relative to its distance from the start; the
    steps before it are taken without gradients."""
    x = start
    for step in steps:
        t = torch.full((1,), float(int(step.t)), device=start.device)
        with torch.set_grad_enabled(step is steps[-1]):
            estimate = x - step.sigma * predict(x, t)
        x = (1 - step.sigma_next) * estimate + step.sigma_next * start
    return ((estimate - end) ** 2).mean() / ((start - end) ** 2).mean()
