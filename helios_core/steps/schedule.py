"""Sigmas and timesteps of the pyramid flow: numpy float64 inside, Python floats out.

Each stage i runs in its own coordinate from 0.999 (its start point, noise blended into the upsampled result of stage
i - 1) to 0 (its end point); only the timestep handed to the network is global. Source: the published scheduler
(HeliosScheduler, HeliosDMDScheduler), tables in the tests.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..config import ScheduleConfig, check_whole, limits

# Training bounds the exponential shift at 7; the published pipelines do not.
TRAINING_CLAMP = math.log(7)


@dataclass(frozen=True)
class Stage:
    """One resolution of the pyramid.

    start, end: global sigma of the stage's start and end point; ori_start: start before the jump's correction.
    t_max, t_min: timesteps at stage sigma 0.999 and at its last training value.
    alpha, beta: weights of the upsampled latent and of the block noise in the jump (1, 0 for stage 0).
    """

    index: int
    ori_start: float
    start: float
    end: float
    t_max: float
    t_min: float
    alpha: float
    beta: float


class Step(NamedTuple):
    """One solver step: from sigma to sigma_next (0 at the last), with the network at timestep t."""

    sigma: float
    sigma_next: float
    t: float


@lru_cache
def stages(config: ScheduleConfig) -> tuple[Stage, ...]:
    """The table of all stages."""
    n = config.num_train_timesteps
    sigma = _train_sigmas(config)
    rows = []
    for i in range(config.stages):
        first, last = int(config.stage_range[i] * n), int(config.stage_range[i + 1] * n)
        ori_start, end = float(sigma[first]), float(sigma[last]) if last < n else 0.0
        alpha, beta = _jump(ori_start, config.gamma) if i else (1.0, 0.0)
        rows.append((ori_start, 1 - alpha * (1 - ori_start) if i else ori_start, end, alpha, beta))
    lengths = np.array([start - end for _, start, end, _, _ in rows])
    ratio = np.concatenate([[0.0], np.cumsum(lengths) / lengths.sum()])
    t = sigma * n
    table = []
    for i, (ori_start, start, end, alpha, beta) in enumerate(rows):
        t_max = min(float(t[int(ratio[i] * n)]), n - 1.0)
        t_end = float(t[min(int((1 - 1e-16 if i + 1 == len(rows) else ratio[i + 1]) * n), n - 1)])
        t_min = float(np.linspace(t_max, t_end, n + 1)[n - 1])
        table.append(Stage(i, ori_start, start, end, t_max, t_min, alpha, beta))
    return tuple(table)


def _train_sigmas(config: ScheduleConfig) -> np.ndarray:
    n, shift = config.num_train_timesteps, config.shift
    sigma = 1.0 - np.linspace(1, 1 / n, n + 1)
    return np.flip(shift * sigma / (1 + (shift - 1) * sigma))[:-1]


def _jump(ori_start: float, gamma: float) -> tuple[float, float]:
    """alpha, beta such that alpha * nearest2x(x) + beta * block noise has white noise of std `start`."""
    alpha = 1 / (math.sqrt(1 + 1 / gamma) * ori_start + 1 - ori_start)
    return alpha, alpha * ori_start / math.sqrt(gamma)


def dynamic_shift(tokens: int, config: ScheduleConfig, *, clamp: float | None = None) -> float:
    """The factor by which sigmas are shifted for a number of tokens; clamp bounds the exponent (training: ln 7).

    ValueError where a factor is beyond all numbers.
    """
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    if config.time_shift_type == "linear":
        return mu
    if clamp is None and not mu < 500:
        raise ValueError(
            f"scheduler config: at {tokens} tokens the shift would be e to the {mu:.0f}; shift_clamp bounds it"
        )
    return math.exp(mu if clamp is None else min(mu, clamp))


def shift_sigma(sigma, factor: float):
    """Moves sigmas toward noise for factor > 1; keeps 0 and 1."""
    return factor * sigma / (1 + (factor - 1) * sigma)


def steps(config: ScheduleConfig, stage: int, n: int, *, tokens: int, solver: str, boost=False, clamp=None):
    """The solver steps of one stage as a list of `Step`.

    n: steps asked for; boost doubles them for DMD (the official first-chunk amplification).
    tokens: patches of the current latent, for the dynamic shift. The last step's sigma_next is 0.
    """
    row = stages(config)[stage]
    n_train = config.num_train_timesteps
    if solver == "dmd":
        count = (2 * n if boost else n) + 1
    else:
        count = n
    if config.stages == 1:
        sigma = np.linspace(0.999, 0, count + 1)[:-1]
        t = sigma * n_train
    else:
        sigma = np.linspace(0.999, np.linspace(0.999, 0, n_train + 1)[-2], count)
        t = np.linspace(row.t_max, row.t_min, count)
    if solver == "dmd":
        sigma, t = sigma[:-1], t[:-1]
    if config.use_dynamic_shifting:
        sigma = shift_sigma(sigma, dynamic_shift(tokens, config, clamp=clamp))
        t = sigma * n_train if config.stages == 1 else row.t_min + sigma * (row.t_max - row.t_min)
    ends = [*sigma[1:].tolist(), 0.0]
    return [Step(*row) for row in zip(sigma.tolist(), ends, t.tolist(), strict=True)]


def parse_steps(text: str, stages: int) -> tuple[int, ...]:
    """Steps per stage from text: "2,2,2", "2 2 2", or one number for a single stage.

    ValueError for anything else, and for another number of stages.
    """
    parts = [p for p in re.split(r"[,\s]+", text.strip()) if p]
    if not parts or not all(re.fullmatch(r"\d+", p) and int(p) > 0 for p in parts):
        raise ValueError(f"steps {text!r}: wanted {stages} positive whole numbers such as {','.join(['2'] * stages)!r}")
    if len(parts) != stages:
        raise ValueError(f"steps {text!r} has {len(parts)} numbers; this checkpoint has {stages} stages")
    return tuple(check_whole(f"steps {text[:40]!r}: each", int(p[:9]), limits.STEPS) for p in parts)
