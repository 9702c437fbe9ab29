"""Anti-drift: is the newest chunk's colour and contrast leaving the run's, and what its copy in the history becomes.

Per element and channel the mean and unbiased variance of a chunk as it was sampled are followed by running moments,
which begin with the first chunk; they are updated before drift is tested. Only the history's newest chunk is ever
corrected: the chunk that is decoded stays clean, and so does the anchor, a frame that drift is measured from. The
moments lie in the History, so a run has its own and takes them along to disk. Source: the published adaptive
anti-drifting (momentum .9, thresholds .15, noise of strength .1, which it also decodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from einops import pack, rearrange, reduce

from .window import History

STRENGTHS = {"off": 0.0, "corrupt": 0.1, "renormalise": 0.5, "anchor": 0.5}
POLICIES = tuple(STRENGTHS)
FLAT = 1e-5  # a channel of less contrast than this is constant but for rounding


@dataclass(frozen=True)
class DriftPolicy:
    """What is done about drift: nothing (off measures only), noise, or a way back to the running or first moments.

    strength: of the noise (corrupt), or how far back the moments go, 1 being all the way; 0 is the policy's own.
    ValueError for an unknown policy and for numbers out of range.
    """

    name: str = "off"
    strength: float = 0.0
    mean_threshold: float = 0.15
    variance_threshold: float = 0.15
    momentum: float = 0.9

    def __post_init__(self):
        if self.name not in POLICIES:
            raise ValueError(f"anti-drift policy {self.name!r}: wanted one of {', '.join(POLICIES)}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"anti-drift strength {self.strength}: wanted 0 (the policy's own) or up to 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"anti-drift momentum {self.momentum}: wanted from 0 to less than 1")
        for name in ("mean_threshold", "variance_threshold"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"anti-drift {name} {getattr(self, name)}: wanted a distance from 0")

    @property
    def own_strength(self) -> float:
        """The strength, the policy's own where it was left at 0."""
        return self.strength or STRENGTHS[self.name]

    def directed(self, strength: float | None) -> DriftPolicy:
        """This policy with a score's strength: None leaves its own, 0 corrects nothing."""
        if strength is None:
            return self
        return replace(self, strength=strength) if strength else replace(self, name="off", strength=0.0)


def parse_policy(text: str) -> DriftPolicy:
    """A policy such as "renormalise" or "corrupt:0.2". ValueError says what was wanted."""
    name, colon, strength = text.partition(":")
    try:
        value = float(strength) if colon else 0.0
    except ValueError:
        raise ValueError(f"anti-drift {text!r}: wanted POLICY or POLICY:STRENGTH, such as corrupt:0.1") from None
    if colon and not value > 0:
        raise ValueError(f"anti-drift {text!r}: wanted a strength above 0; the policy off corrects nothing")
    return DriftPolicy(name, value)


class Drift(NamedTuple):
    """How far the newest chunk's means and variances are from the running ones and the first chunk's, and the verdict.

    Distances: L2 over channels, mean over the batch, normalised latents.
    """

    mean: float
    variance: float
    first_mean: float
    first_variance: float
    found: bool


class Corrected(NamedTuple):
    """The history with its newest chunk corrected, that chunk [b c t h w], what was found, and a line that says so."""

    history: History
    chunk: Any
    drift: Drift
    report: str


def measure(chunk):
    """Mean and unbiased variance over t h w: [b c t h w] -> [b c 2]."""
    mean = reduce(chunk, "b c t h w -> b c 1 1 1", "mean")
    variance = reduce((chunk - mean) ** 2, "b c t h w -> b c", "sum") / (math.prod(chunk.shape[2:]) - 1)
    return pack([mean[:, :, 0, 0, 0], variance], "b c *")[0]


def distances(moments, reference) -> tuple[float, float]:
    """How far moments [b c 2] are from a reference's: means and variances, L2 over channels, mean over the batch."""
    far = reduce((moments - reference) ** 2, "b c k -> b k", "sum") ** 0.5
    mean, variance = reduce(far, "b k -> k", "mean")
    return float(mean), float(variance)


def toward(chunk, moments, strength: float):
    """A chunk whose means and standard deviations go that part of the way to those of `moments`; 1 is all the way.

    A constant channel has no contrast to stretch: only its mean moves.
    """
    own, goal = (rearrange(m, "b c k -> k b c 1 1 1") for m in (measure(chunk), moments))
    (mean, std), (goal_mean, goal_std) = (own[0], own[1] ** 0.5), (goal[0], goal[1] ** 0.5)
    there = (chunk - mean) / (std + (std < FLAT)) * goal_std + goal_mean
    return chunk + strength * (there - chunk)


def observe(history: History, momentum: float, chunk_frames: int) -> History:
    """The history with its newest chunk's moments taken; as it is where they have been, so none counts twice."""
    if history.newest_moments is not None:
        return history
    now = measure(newest(history, chunk_frames))
    if history.moments is None:
        return replace(history, moments=now, first_moments=now, newest_moments=now)
    return replace(history, moments=momentum * history.moments + (1 - momentum) * now, newest_moments=now)


def newest(history: History, chunk_frames: int):
    """The newest chunk [b c t h w] in the history. ValueError where there is none, or not the whole of it."""
    if not history.chunk:
        raise ValueError("anti-drift: the history holds no chunk yet; it goes after a chunk is sampled")
    check_window(history, chunk_frames)
    return history.window[:, :, -chunk_frames:]


def check_window(history: History, chunk_frames: int) -> None:
    """ValueError for a history too short for a whole chunk."""
    if history.window.shape[2] < chunk_frames:
        raise ValueError(
            f"anti-drift: the history remembers {history.window.shape[2]} latent frames, a chunk has {chunk_frames}; "
            f"give it sizes of {chunk_frames} frames or more in all, such as 16,2,1"
        )


def find(history: History, policy: DriftPolicy) -> Drift:
    """What an observed history's moments say. ValueError for NaN or infinity."""
    far = distances(history.newest_moments, history.moments)
    first = distances(history.newest_moments, history.first_moments)
    if not all(map(math.isfinite, (*far, *first))):
        raise ValueError(f"anti-drift: chunk {history.chunk} holds NaN or infinity; sample it again")
    tested = first if policy.name == "anchor" else far
    return Drift(*far, *first, tested[0] > policy.mean_threshold and tested[1] > policy.variance_threshold)


def correct(history: History, policy: DriftPolicy, *, chunk_frames: int, noise, array: Callable) -> Corrected:
    """The history with its newest chunk measured and, where drift is found, corrected as the policy says.

    chunk_frames: latent frames of a chunk. noise: a BatchNoise, or what tests inject. array(numpy): the backend's.
    A second correction of the same chunk measures nothing anew and goes on from the first. ValueError without a chunk.
    """
    chunk = newest(history, chunk_frames)
    history = observe(history, policy.momentum, chunk_frames)
    drift = find(history, policy)
    if drift.found and policy.name != "off":
        if policy.name == "corrupt":
            drawn = array(noise.normal(chunk.shape, chunk=history.chunk - 1, use="drift"))
            chunk = chunk + policy.own_strength * drawn
        else:
            goal = history.first_moments if policy.name == "anchor" else history.moments
            chunk = toward(chunk, goal, policy.own_strength)
        past = history.window[:, :, :-chunk_frames]
        history = replace(history, window=pack([past, chunk], "b c * h w")[0])
    return Corrected(history, chunk, drift, describe(history.chunk, policy, drift))


def remember(history: History, chunk, policy: DriftPolicy, *, noise, array: Callable) -> Corrected:
    """`correct` of the history after its next chunk [b c t h w] of normalised latents."""
    return correct(history.append(chunk), policy, chunk_frames=chunk.shape[2], noise=noise, array=array)


def describe(chunk: int, policy: DriftPolicy, drift: Drift) -> str:
    """The finding in words, chunks counted from 1."""
    done = "history left as it is"
    if drift.found and policy.name != "off":
        done = f"history corrected ({policy.name}, strength {policy.own_strength:g})"
    return (
        f"chunk {chunk}: {'drift' if drift.found else 'no drift'}, {done}. Distance of means and variances to the "
        f"running ones {drift.mean:.3f} {drift.variance:.3f}, to the first chunk's {drift.first_mean:.3f} "
        f"{drift.first_variance:.3f}; thresholds {policy.mean_threshold:g} {policy.variance_threshold:g}"
    )
