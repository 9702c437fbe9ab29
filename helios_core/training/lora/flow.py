"""The first part of a training: the flow objective on the folder's clips, and on what the base made of prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ...config import ScheduleConfig
from ..captioned import ClipSet, Sample
from ..loop import rank
from ..objective import SeededDraws, flow_loss
from ..precision import mixed_precision

SEEDS = 4096  # of one step: its processes


def step_draws(seed: int, step: int) -> SeededDraws:
    """The random numbers of a step, other ones in each process."""
    return SeededDraws((seed * 1_000_003 + step) * SEEDS + rank())


def contexts(model: nn.Module, sample: Sample) -> Callable[[Tensor, Tensor], Tensor]:
    """x and timesteps -> velocity, with a sample's prompt and history."""
    text = model.text_context(sample.text)
    history = model.history_context(sample.history.parts(sample.chunk.shape[2]))
    return lambda x, t: model(x, t, text, history)


@dataclass
class FlowObjective:
    """The loss of a step, as `fit` takes it.

    sets: the clips, with the share of the samples that each gives. batch: samples per stage. stages: those that are
    trained; together: all in every step, else one of them, drawn. shift: as `flow_point` has it.
    """

    model: nn.Module
    sets: list[tuple[ClipSet, float]]
    schedule: ScheduleConfig
    batch: int
    stages: tuple[int, ...]
    together: bool
    seed: int = 0
    shift: bool = False
    bf16: bool = True

    def __call__(self, step: int) -> dict[str, Tensor]:
        """loss, and that of each stage where all are trained."""
        draws, count = step_draws(self.seed, step), len(self.stages)
        stages = self.stages if self.together else [self.stages[int(draws.pick(count, 1))]]
        losses = {}
        with mixed_precision(self.model.device, on=self.bf16):
            for stage in stages:
                which = int(draws.choose([share for _, share in self.sets], 1))
                sample = self.sets[which][0].draw(draws, self.batch)
                predict = contexts(self.model, sample)
                losses[stage] = flow_loss(predict, self.schedule, stage, sample.chunk, draws, shift=self.shift)
        named = {f"stage{i}": loss for i, loss in losses.items()} if self.together and count > 1 else {}
        return {"loss": sum(losses.values()), **named}
