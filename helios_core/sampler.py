"""Denoising one chunk through the pyramid, as a generator that yields after every step.

The caller shows progress, previews and stops; nothing here knows of devices. Solvers are functions of
(x, x0, start, step). The start point of a stage is the blended tensor itself: re-noising goes back to it, never to
fresh noise, and it is never normalised. Source: the published pipelines (stage 2 and DMD sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import pyramid, schedule
from .config import ScheduleConfig

SHIFT_TOKENS = ("before upsample", "after upsample")


class SampleStep(NamedTuple):
    """One finished step. index: from 0, over all stages of the chunk; latent, x0: [b c t h w] at the stage's size.

    x0 is the estimate of the clean latent (a preview); the last step's latent is the chunk.
    """

    chunk: int
    stage: int
    index: int
    total: int
    latent: Any
    x0: Any


def dmd(x, x0, start, step: schedule.Step):
    """Back to the stage's start point by sigma_next: (1 - sigma_next) x0 + sigma_next start."""
    return (1 - step.sigma_next) * x0 + step.sigma_next * start if step.sigma_next else x0


def euler(x, x0, start, step: schedule.Step):
    """A straight step along the velocity."""
    return x + (step.sigma_next - step.sigma) / step.sigma * (x - x0)


SOLVERS: dict[str, Callable] = {"dmd": dmd, "euler": euler}


@dataclass(frozen=True)
class Plan:
    """How a chunk is sampled. steps: per stage; boost: double the DMD steps (first chunk); patch: patch size t h w."""

    schedule: ScheduleConfig
    steps: tuple[int, ...]
    solver: str
    boost: bool = False
    shift_tokens: str = SHIFT_TOKENS[0]
    patch: tuple[int, int, int] = (1, 2, 2)
    chunk: int = 0

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise ValueError(f"solver {self.solver!r}: wanted one of {', '.join(SOLVERS)}")
        if len(self.steps) != self.schedule.stages or min(self.steps) < 1:
            raise ValueError(f"steps {self.steps}: wanted {self.schedule.stages} positive numbers, one per stage")
        if self.shift_tokens not in SHIFT_TOKENS:
            raise ValueError(f"shift_tokens {self.shift_tokens!r}: wanted one of {SHIFT_TOKENS}")

    def stage_steps(self, stage: int, shape) -> list[schedule.Step]:
        """The steps of a stage for a latent of `shape` at that stage's resolution."""
        tokens = math.prod(shape[2:]) // math.prod(self.patch)
        if stage and self.shift_tokens == SHIFT_TOKENS[0]:
            tokens //= 4
        boost = self.boost and self.solver == "dmd"
        return schedule.steps(self.schedule, stage, self.steps[stage], tokens=tokens, solver=self.solver, boost=boost)

    @property
    def total(self) -> int:
        """Steps over all stages."""
        return sum(self.steps) * (2 if self.boost and self.solver == "dmd" else 1)


def denoise(predict: Callable, start, draw: Callable, plan: Plan) -> Iterator[SampleStep]:
    """Yields a `SampleStep` per step; the last one's latent is the chunk.

    predict(x, t): velocity of latents x at timestep t (float). start: the coarsest start point [b c t h w] float32.
    draw(stage, shape): standard normal array for the jump into a stage.
    """
    index = 0
    x = start
    whole = plan.schedule.stages > 1
    for row in schedule.stages(plan.schedule):
        if row.index:
            x = pyramid.upsample(x)
            noise = pyramid.block_noise(draw(row.index, tuple(x.shape)), plan.schedule.gamma)
            x = row.alpha * x + row.beta * noise
        stage_start = x
        for step in plan.stage_steps(row.index, x.shape):
            velocity = predict(x, float(int(step.t)) if whole else step.t)
            x0 = x - step.sigma * velocity
            x = SOLVERS[plan.solver](x, x0, stage_start, step)
            yield SampleStep(plan.chunk, row.index, index, plan.total, x, clean_estimate(row, x0, velocity))
            index += 1


def clean_estimate(stage: schedule.Stage, end_point, velocity):
    """The clean latent that an estimated end point and velocity imply: end - sigma_end / (start - end) * velocity."""
    return end_point - stage.end / (stage.start - stage.end) * velocity if stage.end else end_point
