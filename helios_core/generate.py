"""A whole video: its prompts encoded, then chunk after chunk sampled, remembered and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .config import check_whole, limits
from .history import DriftPolicy, History, check_window, remember
from .noise import batch_noise
from .steps import SampleStep, plan_chunk
from .text import PromptSchedule, as_schedule


class ChunkDone(NamedTuple):
    """A finished chunk. latent: normalised [b c t h w]; frames: an iterator over blocks of uint8 frames [f h w 3] of
    the first batch element, decoded as they are asked for; to be used before the next event.

    history: with this chunk in it, corrected where a drift policy says so, as the next chunk sees it; drift: what that
    policy found, in words.
    """

    chunk: int
    total: int
    latent: Any
    frames: Iterator[np.ndarray]
    history: History
    drift: str = ""


def generate(
    helios,
    prompt: str | PromptSchedule,
    *,
    width: int = 0,
    height: int = 0,
    frames: int = 132,
    chunks: int = 0,
    seed: int = 0,
    negative: str | None = None,
    history: History | None = None,
    drift: DriftPolicy | None = None,
    **options,
) -> Iterator[SampleStep | ChunkDone]:
    """Steps and finished chunks of a video of at least `frames` frames (whole chunks of 33), or of so many chunks.

    width, height: 0 is the checkpoint's own. history: continue from there, chunks of a schedule counted on.
    drift: what is done to the history about drift; frames are decoded from the chunks as sampled whatever it is.
    options: as `Helios.sample`. ValueError at once, before anything is loaded.
    """
    schedule = as_schedule(prompt)
    if frames < 1 or chunks < 0:
        raise ValueError(f"frames {frames}, chunks {chunks}: wanted at least 1 frame, or 1 chunk")
    check_whole("frames", frames, limits.FRAMES)
    check_whole("chunks", chunks, limits.CHUNKS, least=0)
    defaults = helios.config.defaults
    if history is None:
        history = helios.history(width or defaults.width, height or defaults.height)
    else:
        check_own_size(history, width, height, helios.config.vae.scale_factor_spatial)
    batch_noise(seed, history.shape[0])
    plan = helios.plan(history, **{k: v for k, v in options.items() if k in plan_chunk.__kwdefaults__})
    total = chunks or -(-frames // helios.config.frames_per_chunk)
    schedule.check_end(history.chunk + total)
    if drift is not None:
        check_window(history, defaults.chunk_latent_frames)
    return _chunks(helios, schedule, negative, history, total, seed, plan.guide is not None, drift, options)


def check_own_size(history: History, width: int, height: int, scale: int) -> None:
    """ValueError if a size in pixels is asked for, other than 0, that is not the history's."""
    own = (history.shape[3] * scale, history.shape[2] * scale)
    if width not in (0, own[0]) or height not in (0, own[1]):
        raise ValueError(
            f"the history is of a video of {own[0]}x{own[1]} pixels, asked for are {width}x{height}; leave the size out"
        )


def _chunks(helios, schedule, negative, history, total, seed, guided, drift, options):
    positive = schedule.encode(helios.text)
    none = helios.text(negative or "") if guided else None
    helios.parts.release("text_encoder")
    noise, array = batch_noise(seed, history.shape[0]), helios.backend.array
    for _ in range(total):
        text = positive.embedding(history.chunk)
        for step in helios.sample(history, text, seed=seed, negative=none, **options):
            yield step
        if drift is None:
            history, report = history.append(step.latent), ""
        else:
            history, _, _, report = remember(history, step.latent, drift, noise=noise, array=array)
        yield ChunkDone(step.chunk, total, step.latent, helios.stream(step.latent), history, report)
