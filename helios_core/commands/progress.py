"""What is said of time: how much is left while chunks are made, and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from ..media import probe


class Left:
    """Of a video's chunks: asked as each begins, says which it is and how long the rest may take."""

    def __init__(self, chunks: int, clock: Callable[[], float] = time.monotonic):
        self.chunks, self.clock, self.first = chunks, clock, None

    def of(self, chunk: int) -> str:
        """chunk: counted from 0. Those that were there before the first that is asked for took no time of this run."""
        now = self.clock()
        self.first = self.first or (chunk, now)
        begun, since = self.first
        head = f"chunk {chunk + 1}/{self.chunks}"
        if chunk <= begun:
            return head
        return f"{head}, {seconds((now - since) / (chunk - begun) * (self.chunks - chunk))} left"


def timed(make: Callable[..., Path]) -> Callable[..., Path]:
    """The same function, which makes a video; at the end it says on stderr how many frames took how long."""

    @wraps(make)
    def made(*args, **options) -> Path:
        began = time.monotonic()
        file = make(*args, **options)
        taken = seconds(time.monotonic() - began)
        print(f"{probe(file).frames} frames in {taken}", file=sys.stderr)
        return file

    return made


def seconds(count: float) -> str:
    """A span of time for people."""
    if count < 60:
        return f"{count:.1f} s" if count < 9.95 else f"{count:.0f} s"
    minutes, rest = divmod(round(count), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
