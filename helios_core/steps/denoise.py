"""Denoising one chunk through the pyramid, as a generator that yields after every step.

One loop for all variants: Base is a pyramid of one stage. The caller shows progress, previews and stops; nothing here
knows of devices. The start point of a stage is the blended tensor itself: re-noising goes back to it, never to fresh
noise, and it is never normalised. Source: the published pipelines (stage 1, stage 2 and DMD sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import pyramid
from ..config import SHIFT_TOKENS, ModelConfig, ScheduleConfig, limits
from . import schedule
from .guidance import CFG, CFGZero, from_scale
from .solvers import SOLVERS

HISTORY = 0.28  # tokens of a history of 16, 2, 1 and the first frame, beside those of a chunk of 9 latent frames


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


@dataclass(frozen=True)
class Plan:
    """How a chunk is sampled.

    steps: per stage; boost: double the DMD steps (first chunk); patch: patch size t h w; shift_clamp: bound the
    exponential shift as training does (at 7, which sizes above 384x640 exceed). ValueError for an unknown solver or
    layout of the steps, and for steps that are not one number per stage.
    """

    schedule: ScheduleConfig
    steps: tuple[int, ...]
    solver: str
    boost: bool = False
    shift_tokens: str = SHIFT_TOKENS[0]
    patch: tuple[int, int, int] = (1, 2, 2)
    chunk: int = 0
    guide: CFG | CFGZero | None = None
    shift_clamp: bool = False

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise ValueError(f"solver {self.solver!r}: wanted one of {', '.join(SOLVERS)}")
        if len(self.steps) != self.schedule.stages or min(self.steps) < 1:
            raise ValueError(f"steps {self.steps}: wanted {self.schedule.stages} positive numbers, one per stage")
        if max(self.steps) > limits.STEPS:
            raise ValueError(f"steps {self.steps}: wanted at most {limits.STEPS} in each stage")
        if self.shift_tokens not in SHIFT_TOKENS:
            raise ValueError(f"shift_tokens {self.shift_tokens!r}: wanted one of {SHIFT_TOKENS}")

    def stage_steps(self, stage: int, shape) -> list[schedule.Step]:
        """The steps of a stage for a latent of `shape` at that stage's resolution."""
        tokens = math.prod(shape[2:]) // math.prod(self.patch)
        if stage and self.shift_tokens == SHIFT_TOKENS[0]:
            tokens //= 4
        return schedule.steps(
            self.schedule,
            stage,
            self.steps[stage],
            tokens=tokens,
            solver=self.solver,
            boost=self.boost and self.solver == "dmd",
            clamp=schedule.TRAINING_CLAMP if self.shift_clamp else None,
        )

    @property
    def total(self) -> int:
        """Steps over all stages."""
        return len(self.costs)

    @property
    def costs(self) -> list[float]:
        """What each step takes beside one of the finest stage without its history: a quarter per stage before it, and
        the history."""
        twice, finest = 2 if self.boost and self.solver == "dmd" else 1, len(self.steps) - 1
        each = [4.0 ** (stage - finest) + HISTORY for stage in range(finest + 1)]
        return [each[s] * (k >= self.zero_steps(s)) for s, n in enumerate(self.steps) for k in range(n * twice)]

    def zero_steps(self, stage: int) -> int:
        """First steps of a stage whose velocity is zero: the guide's, in stage 0 only."""
        return self.guide.zero_steps if self.guide and stage == 0 else 0


def plan_chunk(
    config: ModelConfig,
    chunk: int,
    began: int = 0,
    *,
    steps=None,
    solver="auto",
    boost_first_chunk=True,
    shift_tokens=SHIFT_TOKENS[0],
    cfg=0.0,
    guidance="auto",
    zero_steps=None,
    shift_clamp=False,
) -> Plan:
    """How chunk number `chunk` is sampled; what is left open ("auto", None, cfg 0) is the checkpoint's own.

    began: the chunk that its scene begins with.

    ValueError for zero_steps without CFG-Zero*, and as Plan has it.
    """
    own = config.defaults
    kind = own.guidance if guidance == "auto" else guidance
    guide = from_scale(cfg or own.cfg, kind, own.zero_steps if zero_steps is None else zero_steps)
    if zero_steps is not None and not isinstance(guide, CFGZero):
        raise ValueError(f"zero_steps {zero_steps}: only guidance 'cfg_zero_star' with cfg above 1 has them")
    return Plan(
        config.schedule,
        own.steps if steps is None else tuple(steps),
        own.solver if solver == "auto" else solver,
        boost=boost_first_chunk and own.boost_first_chunk and chunk == began,
        shift_tokens=shift_tokens,
        patch=config.transformer.patch_size,
        chunk=chunk,
        guide=guide,
        shift_clamp=shift_clamp,
    )


def denoise(predict: Callable, start, draw: Callable, plan: Plan) -> Iterator[SampleStep]:
    """Yields a `SampleStep` per step; the last one's latent is the chunk.

    predict(x, t): velocity of latents x at timestep t (float), guided as plan.guide says. start: the coarsest start
    point [b c t h w] float32. draw(stage, shape): standard normal array for the jump into a stage.
    """
    index = 0
    x = start
    whole = plan.schedule.stages > 1
    for row in schedule.stages(plan.schedule):
        if row.index:
            x = pyramid.upsample(x)
            noise = pyramid.block_noise(draw(row.index, tuple(x.shape)), plan.schedule.gamma)
            x = row.alpha * x + row.beta * noise
        stage_start, solve = x, SOLVERS[plan.solver]()
        for k, step in enumerate(plan.stage_steps(row.index, x.shape)):
            t = float(int(step.t)) if whole else step.t
            velocity = x * 0 if k < plan.zero_steps(row.index) else predict(x, t)
            x0 = x - step.sigma * velocity
            x = solve(x, x0, stage_start, step)
            yield SampleStep(plan.chunk, row.index, index, plan.total, x, clean_estimate(row, x0, velocity))
            index += 1


def clean_estimate(stage: schedule.Stage, end_point, velocity):
    """The clean latent that an estimated end point and velocity imply: end - sigma_end / (start - end) * velocity."""
    return end_point - stage.end / (stage.start - stage.end) * velocity if stage.end else end_point


class FiniteCheck:
    """Ends a run at its first step whose latent holds NaN or infinity.

    A step's flag is looked at once the next step is on its way, and once it has arrived where it says so (`arrived`),
    so that asking keeps no device waiting, and nothing but the flag is kept meanwhile; those of a chunk are at its end.
    ValueError names chunk, stage and step.
    """

    def __init__(self):
        self._open: list[tuple[SampleStep, Any]] = []

    def after(self, step: SampleStep, finite) -> None:
        """Called after every step. finite: a truth value, perhaps still on the device."""
        self._open.append((step._replace(latent=None, x0=None), finite))
        last = step.index + 1 == step.total
        while self._open and (last or (len(self._open) > 1 and getattr(self._open[0][1], "arrived", True))):
            check_finite(*self._open.pop(0))


def check_finite(step: SampleStep, finite) -> None:
    """ValueError that names the step unless `finite`."""
    if not bool(finite):
        raise ValueError(
            f"chunk {step.chunk + 1}, stage {step.stage + 1}, step {step.index + 1} of {step.total}: the latent "
            "holds NaN or infinity. Try weight dtype fp32 or bf16 and a lower cfg, and check that weights and LoRAs "
            "are whole and of this model."
        )
