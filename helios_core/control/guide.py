"""A control on a model: which adapter, which latents, in which chunks and how strongly; and what it adds to a chunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from ..disk import digest
from ..pyramid import POLICIES as KNOWN
from .adapter import AdapterFile
from .tokens import levels, tokens

POLICIES = ("from adapter", *(policy for policy in KNOWN if policy != "match_frame"))
MAX_STRENGTH = 10.0


@dataclass(frozen=True, eq=False)
class Control:
    """latents [1|b c t h w], normalised, whole chunks: the first belongs to chunk number `first` of the video.

    last: the last chunk that is controlled; None: as far as the latents go. policy: of POLICIES. adapt(parts): parts
    whose transformer has the adapter's LoRA; None where it has none. ValueError for what cannot be.
    """

    adapter: AdapterFile
    latents: Any
    chunk_frames: int
    strength: float = 1.0
    first: int = 0
    last: int | None = None
    policy: str = POLICIES[0]
    adapt: Callable | None = None
    kept: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"control policy {self.policy!r}: wanted one of {', '.join(POLICIES)}")
        if not math.isfinite(self.strength) or abs(self.strength) > MAX_STRENGTH:
            raise ValueError(f"control strength {self.strength}: wanted a number from -10 to 10, mostly 1")
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise ValueError(f"control from chunk {self.first} to {self.last}: wanted 0 or more, the last not before")

    def acts(self, chunk: int) -> bool:
        """Whether it is there in a chunk of the video, counted from 0. At strength 0 it never is."""
        count = self.latents.shape[2] // self.chunk_frames
        end = self.first + count - 1 if self.last is None else min(self.last, self.first + count - 1)
        return bool(self.strength) and self.first <= chunk <= end

    def part(self, chunk: int):
        """The latents of a chunk that it acts in."""
        start = (chunk - self.first) * self.chunk_frames
        return self.latents[:, :, start : start + self.chunk_frames]

    @property
    def report(self) -> str:
        """One line: what controls which chunks."""
        last = self.first + self.latents.shape[2] // self.chunk_frames - 1
        last = last if self.last is None else min(self.last, last)
        kind = f" ({self.adapter.extractor})" if self.adapter.extractor else ""
        chunks = f"chunks {self.first} to {last}" if self.strength else "no chunk"
        return f"{self.adapter.path.name}{kind} at {self.strength:g}, {self.how}: {chunks}"

    @property
    def how(self) -> str:
        """The policy by which it goes down the pyramid."""
        return self.adapter.policy if self.policy == POLICIES[0] else self.policy

    def identity(self, chunk: int) -> tuple:
        """What a chunk that it acts in depends on."""
        return self.adapter.identity, self.strength, self.how, digest(self.part(chunk))

    def changed(self, parts):
        """The parts with the adapter's LoRA, made once."""
        if self.adapt is None:
            return parts
        if parts not in self.kept:
            self.kept[parts] = self.adapt(parts)
        return self.kept[parts]


def adapted(parts, controls: tuple[Control, ...], chunk: int):
    """The parts that sample a chunk: with the LoRAs of the controls that act in it."""
    for control in controls:
        parts = control.changed(parts) if control.acts(chunk) else parts
    return parts


def identities(controls: tuple[Control, ...], chunk: int) -> tuple:
    """What a chunk depends on by its controls; empty where none acts."""
    return tuple(control.identity(chunk) for control in controls if control.acts(chunk))


def check_controls(controls: tuple[Control, ...], shape: tuple[int, int, int, int], chunk: int) -> None:
    """ValueError for a control that acts in a chunk and is not of its size. shape: b c h w of the history."""
    b, c, h, w = shape
    for control in (control for control in controls if control.acts(chunk)):
        got = tuple(control.latents.shape)
        if got[1:2] + got[3:] != (c, h, w):
            raise ValueError(
                f"control: its latents are of {got[4]}x{got[3]} with {got[1]} channels, the video's of {w}x{h} with "
                f"{c}; encode the control video at the video's width and height"
            )
        if got[0] not in (1, b):
            raise ValueError(f"control: a batch of {got[0]} for {b} videos; wanted 1 or {b}")


def control_tokens(controls: tuple[Control, ...], chunk: int, model, stages: int) -> tuple:
    """Per stage, coarsest first, tokens [1|b n d] that are added to the current ones of a chunk; () for none.

    model: a transformer of backends/interface.py, whose arrays they are.
    """
    found = None
    for control in (control for control in controls if control.acts(chunk)):
        weight, bias = (model.array(x) for x in (control.adapter.weight, control.adapter.bias))
        parts = levels(control.part(chunk), stages, control.how)
        own = [control.strength * tokens(model.array(z), weight, bias) for z in parts]
        found = own if found is None else [a + b for a, b in zip(found, own)]
    return tuple(found or ())
