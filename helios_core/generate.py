"""A whole video: its prompts encoded, then chunk after chunk sampled, remembered and decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .history import History
from .noise import batch_noise
from .prompts import PromptSchedule, as_schedule
from .sampler import SampleStep, plan_chunk


class ChunkDone(NamedTuple):
    """A finished chunk. latent: normalised [b c t h w]; frames: uint8 [f h w 3] of the first batch element."""

    chunk: int
    total: int
    latent: Any
    frames: np.ndarray


def generate(
    helios,
    prompt: str | PromptSchedule,
    *,
    width: int = 0,
    height: int = 0,
    frames: int = 132,
    seed: int = 0,
    negative: str | None = None,
    history: History | None = None,
    **options,
) -> Iterator[SampleStep | ChunkDone]:
    """Steps and finished chunks of a video of at least `frames` frames (whole chunks of 33).

    width, height: 0 is the checkpoint's own. history: continue from there, chunks of a schedule counted on.
    options: as `Helios.sample`. ValueError at once, before anything is loaded.
    """
    schedule = as_schedule(prompt)
    if frames < 1:
        raise ValueError(f"frames {frames}: wanted at least 1")
    defaults = helios.config.defaults
    if history is None:
        history = helios.history(width or defaults.width, height or defaults.height)
    else:
        check_own_size(history, width, height, helios.config.vae.scale_factor_spatial)
    batch_noise(seed, history.shape[0])
    plan = helios.plan(history, **{k: v for k, v in options.items() if k in plan_chunk.__kwdefaults__})
    total = math.ceil(frames / helios.config.frames_per_chunk)
    schedule.check_end(history.chunk + total)
    return _chunks(helios, schedule, negative, history, total, seed, plan.guide is not None, options)


def check_own_size(history: History, width: int, height: int, scale: int) -> None:
    """ValueError if a size in pixels is asked for, other than 0, that is not the history's."""
    own = (history.shape[3] * scale, history.shape[2] * scale)
    if width not in (0, own[0]) or height not in (0, own[1]):
        raise ValueError(
            f"the history is of a video of {own[0]}x{own[1]} pixels, asked for are {width}x{height}; leave the size out"
        )


def _chunks(helios, schedule, negative, history, total, seed, guided, options):
    positive = schedule.encode(helios.text)
    none = helios.text(negative or "") if guided else None
    helios.release("text_encoder")
    for _ in range(total):
        text = positive.embedding(history.chunk)
        for step in helios.sample(history, text, seed=seed, negative=none, **options):
            yield step
        history = history.append(step.latent)
        yield ChunkDone(step.chunk, total, step.latent, helios.decode(step.latent))
