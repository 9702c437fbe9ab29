"""When a clip's frames are shown, and how they become frames at a constant rate, which models and encoders want."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

USUAL = [Fraction(n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001))]
ALIKE = 0.003  # rates so near are one
ROUNDED = 0.0003  # what milliseconds do to a rate; 24000/1001 and 24 differ by 0.001
FALLBACK = Fraction(25)
MOST = 1000
JITTER = 0.75  # of a frame: no more than that off an even beat
SAME_STEP = 0.25


class Times(NamedTuple):
    """rate: frames per second once steady. frames: how many then. variable: whether frames stay unequally long.

    start: of the first frame, in seconds of the file.
    """

    rate: Fraction
    frames: int
    variable: bool = False
    start: Fraction = Fraction(0)


def measure(shown: list[Fraction], last: Fraction, rates: Iterable[Fraction | None], path) -> Times:
    """Of frames shown at those seconds, in order; last: how long the last one stays, 0 if that is not known.

    rates: what the file says, the best first. A frame left out here and there does not make a rate variable.
    ValueError for frames that are absurdly far apart.
    """
    said, count = [Fraction(rate) for rate in rates if rate and 0 < rate <= MOST], len(shown)
    if count < 2 or shown[-1] <= shown[0]:
        return Times((said or [FALLBACK])[0], count, start=shown[0] if shown else Fraction(0))
    span = shown[-1] - shown[0]
    if all((t - shown[0]) * (count - 1) == i * span for i, t in enumerate(shown)):
        return Times(min((count - 1) / span, Fraction(MOST)), count, start=shown[0])
    times = np.array([float(t - shown[0]) for t in shown])
    mean = times[-1] / (count - 1)
    if np.abs(times - mean * np.arange(count)).max() < JITTER * mean:
        return Times(_settled(1 / mean, said, 0.02), count, start=shown[0])
    steps = np.diff(times)
    short = max(np.quantile(steps, 0.1), 1 / MOST)
    near = steps[np.abs(steps - short) <= SAME_STEP * short]
    rate = _settled(1 / (near.mean() if len(near) else short), said, ALIKE)
    ticks = _tick(span, rate) + 1
    if 0 <= ticks - count <= max(1, count // 50):
        return Times(rate, count, start=shown[0])
    ticks = max(ticks, _tick(span + last, rate))
    if ticks > 100 * count + 10_000:
        raise ValueError(f"{path}: its frames are too far apart, {count} in {float(span):g} seconds")
    return Times(rate, ticks, True, shown[0])


def _settled(rate: float, said: list[Fraction], alike: float) -> Fraction:
    """The rate that was said, if it is that one, else the measured one; a usual one for both if it is so near."""
    near = [other for other in said if abs(other / rate - 1) <= alike]
    found = near[0] if near else Fraction(min(rate, MOST)).limit_denominator(1001) or Fraction(1, 1001)
    usual = min(USUAL, key=lambda other: abs(other / found - 1))
    return usual if abs(usual / found - 1) <= ROUNDED else found


def _tick(time: Fraction, rate: Fraction) -> int:
    return int(time * rate + Fraction(1, 2))


def steady(shown: Iterable[tuple[Fraction, np.ndarray]], times: Times) -> Iterator[np.ndarray]:
    """Frames (seconds, pixels) of a variable rate as `times.frames` at a constant one: at each the one shown then."""
    held, given = None, 0
    for at, pixels in shown:
        while held is not None and given < _tick(at - times.start, times.rate):
            yield held
            given += 1
        held = pixels
    while held is not None and given < times.frames:
        yield held
        given += 1
