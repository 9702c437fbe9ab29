"""A whole video: its prompts encoded, then chunk after chunk sampled, remembered and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .config import check_whole, limits
from .disk import Store, digest
from .history import DriftPolicy, History, check_window, remember, toward_picture
from .noise import batch_noise
from .steps import SampleStep, plan_chunk
from .text import Direction, PromptSchedule, as_schedule
from .version import VERSION


class ChunkDone(NamedTuple):
    """A finished chunk. latent: normalised [b c t h w]; frames: an iterator over blocks of uint8 frames [f h w 3] of
    the first batch element, decoded as they are asked for; to be used before the next event.

    history: with this chunk in it, corrected where a drift policy says so, as the next chunk sees it; drift: what that
    policy found, in words. made_of: what the frames depend on; None where no store was given.
    """

    chunk: int
    total: int
    latent: Any
    frames: Iterator[np.ndarray]
    history: History
    drift: str = ""
    made_of: tuple | None = None


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
    picture: Callable[[str], Any] | None = None,
    store: Store | None = None,
    **options,
) -> Iterator[SampleStep | ChunkDone]:
    """Steps and finished chunks of a video of at least `frames` frames (whole chunks of 33), or of so many chunks.

    width, height: 0 is the checkpoint's own. history: continue from there, chunks of a schedule counted on.
    drift: what is done to the history about drift; frames are decoded from the chunks as sampled whatever it is.
    picture: a name in the schedule -> that picture [1 h w 3]. The schedule's settings count more than those given here.
    store: chunks that are in it are not sampled again and come without steps; the others are kept in it.
    options: as `Helios.sample`. ValueError at once, before anything is loaded.
    """
    schedule = as_schedule(prompt)
    if frames < 1 or chunks < 0:
        raise ValueError(f"frames {frames}, chunks {chunks}: wanted at least 1 frame, or 1 chunk")
    check_whole("frames", frames, limits.FRAMES)
    check_whole("chunks", chunks, limits.CHUNKS, least=0)
    if history is None:
        history = helios.history(width or helios.config.defaults.width, height or helios.config.defaults.height)
    else:
        check_own_size(history, width, height, helios.config.vae.scale_factor_spatial)
    if drift is not None:
        check_window(history, helios.config.defaults.chunk_latent_frames)
    batch_noise(seed, history.shape[0])
    total = count_chunks(schedule, history.chunk, chunks or -(-frames // helios.config.frames_per_chunk))
    check_needs(schedule, drift, picture)
    guided = check_directions(helios, schedule, history, total, options)
    return _chunks(helios, schedule, negative, history, total, seed, guided, drift, picture, store, options)


def count_chunks(schedule: PromptSchedule, done: int, wanted: int) -> int:
    """How many chunks follow after `done`: as many as wanted, at most up to the schedule's end. ValueError for none."""
    schedule.check_end(done + wanted)
    if schedule.end is None:
        return wanted
    if schedule.end <= done:
        raise ValueError(f"the schedule ends the video before chunk {schedule.end}, and {done} chunks are made already")
    return min(wanted, schedule.end - done)


def check_needs(schedule: PromptSchedule, drift, picture) -> None:
    """ValueError where a schedule's settings need what is not given."""
    if drift is None and any(cue.direction.drift for cue in schedule.cues):
        how = "name one, such as anchor (--anti-drift anchor)"
        raise ValueError(f"the schedule sets drift's strength, but no policy is chosen; {how}")
    if picture is None and schedule.pictures:
        raise ValueError(f"the schedule names the picture {schedule.pictures[0]!r}, and nothing reads pictures here")


def check_directions(helios, schedule: PromptSchedule, history: History, total: int, options: dict) -> bool:
    """Whether any chunk to come is guided. ValueError for settings that the model does not take."""
    plain = {name: value for name, value in options.items() if name in plan_chunk.__kwdefaults__}
    given = {schedule.direction(history.chunk + k).cfg for k in range(total)} if schedule.has_settings else {None}
    plans = [helios.plan(history, **{**plain, **({} if cfg is None else {"cfg": cfg})}) for cfg in given]
    return any(plan.guide is not None for plan in plans)


def directed(helios, history: History, given: Direction, *, seed: int, picture=None, encode=None):
    """(The history that the next chunk is put behind, the one that it sees), as a score directs: see Direction.

    picture: a name -> that picture [1 h w 3]. encode: as `starts.begin` takes it. ValueError for what is no picture.
    """
    history = history.cut() if given.cut else history
    if given.image is None:
        return history, history
    name, strength = given.image
    return history, toward_picture(helios, history, picture(name), strength, seed=seed, encode=encode)


def check_own_size(history: History, width: int, height: int, scale: int) -> None:
    """ValueError if a size in pixels is asked for, other than 0, that is not the history's."""
    own = (history.shape[3] * scale, history.shape[2] * scale)
    if width not in (0, own[0]) or height not in (0, own[1]):
        raise ValueError(
            f"the history is of a video of {own[0]}x{own[1]} pixels, asked for are {width}x{height}; leave the size out"
        )


def chunk_key(helios, history: History, positive, *, negative=None, **given) -> str | None:
    """A digest of all that `helios.sample` makes of the same arguments depends on; None where nobody knows what."""
    if (identity := helios.parts.identity) is None:
        return None
    empty = helios.embeddings.key if negative is None else None  # what an open negative is encoded by
    given = {**plan_chunk.__kwdefaults__, "start": None, **given}
    made_of = identity, history, positive, negative, empty, sorted(given.items())
    return digest("latent", VERSION, *made_of, *helios.control_identity(history.chunk))


def _chunks(helios, schedule, negative, history, total, seed, guided, drift, picture, store, options):
    positive = schedule.encode(helios.text)
    none = helios.text(negative or "") if guided else None
    helios.parts.release("text_encoder")
    array = helios.backend.array
    for i in range(total):
        chunk = history.chunk
        given = schedule.direction(history.chunk)
        own = seed if given.seed is None else given.seed
        steered = options if given.cfg is None else {**options, "cfg": given.cfg}
        text = positive.embedding(history.chunk)
        history, seen = directed(helios, history, given, seed=own, picture=picture)
        latent = yield from _chunk(helios, store, seen, text, {"seed": own, "negative": none, **steered})
        if drift is None:
            history, report = history.append(latent), ""
        else:
            policy, noise = drift.directed(given.drift), batch_noise(own, history.shape[0])
            history, _, _, report = remember(history, latent, policy, noise=noise, array=array)
        made_of = None if store is None else frames_of(helios, latent, i)
        yield ChunkDone(chunk, total, latent, helios.stream(latent), history, report, made_of)


def _chunk(helios, store, history, text, given):
    """Yields the steps of a chunk that is not in the store yet; returns its latents."""
    key = None if store is None else chunk_key(helios, history, text, **given)
    found = None if key is None else store.arrays(key)
    if found is not None and "latent" in found:
        return helios.backend.array(found["latent"])
    for step in helios.sample(history, text, **given):
        yield step
    if key is not None:
        store.keep(key, {"latent": step.latent})
    return step.latent


def frames_of(helios, latent, index: int) -> tuple:
    """What the frames of a video's chunk depend on. latent: normalised [b c t h w]; index: of the chunk, from 0."""
    z = np.asarray(helios.backend.to_cpu(helios.denormalise(latent[:1])))  # numbers that any thread may read
    return helios.parts.vae_identity, z, index * latent.shape[2]
