"""The objective of checkpoints that take few DMD steps per stage, such as Distilled: regression on where a stage ends.

A stage's guided many-step solution is a fixed map from start point, history and prompt to the end point. The first DMD
step estimates the end from the start, the next ones from the start mixed with the estimate before; each is regressed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...steps import Plan, denoise


def stage_points(
    predict: Callable[[Tensor, float], Tensor], start: Tensor, draw: Callable, plan: Plan
) -> tuple[list[Tensor], list[Tensor]]:
    """Samples a chunk: where each stage began, and where it ended; the last end is the chunk.

    predict: x [b c t h w] and timestep -> velocity. start: the coarsest start point; draw: as `denoise` has it.
    """
    starts: dict[tuple, Tensor] = {}
    ends: dict[int, Tensor] = {}

    def seen(x: Tensor, t: float) -> Tensor:
        starts.setdefault(tuple(x.shape), x)
        return predict(x, t)

    for step in denoise(seen, start, draw, plan):
        ends[step.stage] = step.latent
    return list(starts.values()), list(ends.values())


def few_step_loss(
    predict: Callable[[Tensor, Tensor], Tensor], plan: Plan, stage: int, start: Tensor, end: Tensor
) -> Tensor:
    """Squared error of every step's estimate of the end point, relative to how far it is from the start point.

    predict: x [b c t h w] and timestep [1] -> velocity, with history and text bound. start, end: of that stage.
    """
    x, loss = start, 0.0
    for step in plan.stage_steps(stage, start.shape):
        t = torch.full((1,), float(int(step.t)), device=start.device)
        estimate = x - step.sigma * predict(x, t)
        loss = loss + ((estimate - end) ** 2).mean() / ((start - end) ** 2).mean()
        x = (1 - step.sigma_next) * estimate.detach() + step.sigma_next * start
    return loss
