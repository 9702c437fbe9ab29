"""What an actor says of a video while it makes it, and of its end."""

from __future__ import annotations

from typing import NamedTuple


class Opened(NamedTuple):
    """The model is open. text: what it needs of memory, and what its LoRAs change."""

    text: str


class Share(NamedTuple):
    """How much of a video is there, 0..1, and at what it is."""

    done: float
    text: str


class Said(NamedTuple):
    """A line for people."""

    text: str


class Made(NamedTuple):
    """The video's file is there."""


class Failed(NamedTuple):
    """It cannot be made; others can."""

    text: str


class Encoded(NamedTuple):
    """Embeddings by prompt."""

    rows: dict
