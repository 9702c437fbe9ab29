"""The pyramid flow objective of the official stage 2 training, for any schedule; one stage is Base's plain flow.

One noise for all stages, start point start * noise + (1 - start) * upsampled coarser clean latent, end point end *
noise + (1 - end) * clean latent, velocity target start point - end point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ... import pyramid
from ...config import ScheduleConfig
from ...steps import schedule
from .draws import SeededDraws

FIRST = 0.999  # sigma of a stage's start point


class FlowPoint(NamedTuple):
    """x [b c t h w] between a stage's start and end point, the timesteps t [b] there, the velocity to learn."""

    x: Tensor
    t: Tensor
    target: Tensor


def flow_pair(stage: schedule.Stage, clean: Tensor, noise: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Start and end point of a stage for full-resolution clean latents and noise [b c t h w]."""
    levels = last - stage.index
    x = pyramid.downsample(clean, (2,) * levels, "content") if levels else clean
    n = pyramid.downsample(noise, (2,) * levels, "noise") if levels else noise
    if stage.index == 0:
        return n, stage.end * n + (1 - stage.end) * x
    coarse = pyramid.upsample(pyramid.downsample(x, (2,), "content"))
    return stage.start * n + (1 - stage.start) * coarse, stage.end * n + (1 - stage.end) * x


def flow_point(
    config: ScheduleConfig, stage: int, clean: Tensor, noise: Tensor, time: Tensor, *, shift: bool = False
) -> FlowPoint:
    """The point of a stage at times [b] from 1, its start, to 0, its end; clean and noise as `flow_pair` has them.

    shift: by the schedule's dynamic shift for this stage's tokens, bounded as in the official training (whose stages 1
    and 2 leave it off).
    """
    row = schedule.stages(config)[stage]
    start, end = flow_pair(row, clean, noise, config.stages - 1)
    sigma, span = FIRST * time, row.t_max - row.t_min
    t = config.num_train_timesteps * sigma if config.stages == 1 else row.t_min + time * span
    if shift:
        tokens = math.prod(start.shape[2:]) // 4
        sigma = schedule.shift_sigma(sigma, schedule.dynamic_shift(tokens, config, clamp=schedule.TRAINING_CLAMP))
        t = config.num_train_timesteps * sigma if config.stages == 1 else row.t_min + sigma * span
    sigma = sigma.view(-1, 1, 1, 1, 1)
    return FlowPoint(sigma * start + (1 - sigma) * end, t, start - end)


def flow_loss(
    predict: Callable[[Tensor, Tensor], Tensor], config: ScheduleConfig, stage: int, clean: Tensor, draws: SeededDraws,
    *, shift: bool = False, relative: bool = True,
) -> Tensor:  # fmt: skip
    """Mean squared error of the velocity, at times spread evenly over the stage.

    predict: x [b c t h w] and timesteps [b] -> velocity. clean: normalised latents [b c t h w] at full size. relative:
    to the target's power, because the coarsest stage's velocity is a third as large as the finest's: unweighted, the
    stage that decides what moves where would get a tenth of the gradient. The official training does not weight.
    """
    noise, n = draws.randn(*clean.shape).to(clean.device), len(clean)
    time = ((torch.arange(n) + draws.rand(n)) / n).to(clean.device)
    point = flow_point(config, stage, clean, noise, time, shift=shift)
    error = ((predict(point.x, point.t) - point.target) ** 2).mean()
    return error / (point.target**2).mean() if relative else error
