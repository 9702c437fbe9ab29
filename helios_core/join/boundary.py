"""What happens where two chunks meet: nothing, a match of brightness and contrast, or a cross-fade.

Chunks do not overlap, so there is nothing to blend but the last frame of the video so far, held. All that is kept of
the earlier chunks is a `Tail`: that frame, and a few small statistics of it and of the frames before it. Frames go
through in blocks, as a decoder gives them; those that no policy touches stay the same objects, bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..resample import matrix

POLICIES = ("none", "match", "crossfade")
FRAMES = 6  # of the ramp or the fade: a quarter second
CELL = 16  # pixels to a cell of the brightness map, along each axis
KEPT = 5  # frames at the end of a chunk that say how much the picture changes by itself
# The dead zone: a joint is left alone unless it changes by more than this, and by more than twice what the frames
# before it do.
BRIGHTNESS = 1.0  # levels of 255, the median over the cells
CONTRAST = 0.01  # of the frame's standard deviation
TIMES = 2.0
# Beyond these it is no drift but another picture.
LOCAL = 24.0  # levels of 255: a cell that departs by more from the median change has something else in it
MOST_CELLS = 1 / 4  # of the cells may do so
SHIFT = 64.0  # levels of 255: the median change
GAIN = 1.25  # contrast, either way
ALIKE = 0.7  # correlation of the two frames, at the scale where they agree best
SCALES = (2, 4, 8, 16)  # pixels
PASSES = 6  # light that fell unevenly looks like contrast until it is taken away, which needs the contrast


@dataclass(frozen=True)
class Boundary:
    """How chunks are joined. frames: how many of the new chunk `match` and `crossfade` change, at its start.

    drop_first_frame: leave out the first frame of every chunk that follows another one. ValueError for a bad choice.
    """

    policy: str = "none"
    frames: int = FRAMES
    drop_first_frame: bool = False

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"boundary {self.policy!r}: wanted one of {', '.join(POLICIES)}")
        if self.frames < 1:
            raise ValueError(f"boundary frames: wanted at least 1, got {self.frames}; for none choose boundary none")

    def chunks(self, frames: int, per_chunk: int) -> int:
        """How many chunks of `per_chunk` frames make a video of at least `frames`.

        ValueError where a chunk has no frame left.
        """
        less = int(self.drop_first_frame)
        if per_chunk <= less:
            raise ValueError(f"a chunk of {per_chunk} frame has none left without its first")
        return max(1, -(-(frames - less) // (per_chunk - less)))


@dataclass(frozen=True, eq=False)
class Tail:
    """The end of a video. frame: its last one, uint8 [h w 3], exact (files are lossy).

    cells: mean levels of the last frames [<= 5, h/16, w/16, 3]; spreads: their standard deviations [<= 5, 3].
    """

    frame: np.ndarray
    cells: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of(cls, frames: Iterable[np.ndarray]) -> Tail:
        """Of the last frames of a video, uint8 [h w 3] each, oldest first; at least one, five say all."""
        frames = list(frames)[-KEPT:]
        frame = frames[-1].copy()
        frame.flags.writeable = False
        floats = [f.astype(np.float32) for f in frames]
        return cls(frame, np.stack([_cells(f) for f in floats]), np.stack([f.std((0, 1)) for f in floats]))


def _weights(kernel: str, size: int, count: int) -> np.ndarray:
    return matrix(kernel, size, Fraction(size, count)).astype(np.float32)


def _resize(x: np.ndarray, height: int, width: int, kernel: str) -> np.ndarray:
    """[h w c] -> [height width c]."""
    rows, columns = _weights(kernel, x.shape[0], height), _weights(kernel, x.shape[1], width)
    return np.einsum("ih,hwc,jw->ijc", rows, x, columns, optimize=True)


def _cells(frame: np.ndarray, size: int = CELL) -> np.ndarray:
    h, w, _ = frame.shape
    return _resize(frame, max(1, round(h / size)), max(1, round(w / size)), "area")


def _still(cells: np.ndarray) -> np.ndarray:
    return cells[-1]


def _moving(cells: np.ndarray) -> np.ndarray:
    """The last two steps go on, so that what moves steadily is no jump."""
    back = min(len(cells) - 1, 2)
    return cells[-1] + (cells[-1] - cells[-1 - back]) / max(back, 1)


def _outlook(cells: np.ndarray) -> tuple[np.ndarray, float]:
    """The cells expected after [k r c 3], by whichever guess erred less among these, and its largest error so far."""
    found = []
    for guess in (_still, _moving):
        errors = [cells[i] - guess(cells[:i]) for i in range(2, len(cells))]
        found.append((max(map(_typical, errors), default=0.0), sum(map(_rms, errors)), guess))
    usual, _, best = min(found, key=lambda f: f[:2])
    return best(cells), usual


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt((x**2).mean())) if x.size else 0.0


def _typical(difference: np.ndarray) -> float:
    """The median over cells [... 3] of the largest channel's: what moves changes few cells, drift most of them."""
    return float(np.median(abs(difference).max(-1))) if difference.size else 0.0


def _step(before: np.ndarray, after: np.ndarray) -> float:
    """The change of spreads [3] in parts of the whole."""
    return float(abs(after - before).max() / max(before.max(), 1.0))


def alike(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of two frames [h w 3], -1..1, at the best of four scales; brightness and contrast cancel out.

    Frames without any structure are like each other, and unlike all others.
    """
    return max(_correlation(_cells(one, size), _cells(two, size)) for size in SCALES)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean((0, 1)), b - b.mean((0, 1))
    flat = [_rms(x) < 1 for x in (a, b)]
    if any(flat):
        return float(all(flat))
    return float((a * b).mean() / (_rms(a) * _rms(b)))


Repair = Callable[[np.ndarray, int], np.ndarray]  # a float frame and its place in the chunk -> the repaired frame


@dataclass(frozen=True, eq=False)
class _Joint:
    """What a tail and the frame after it have in common. usable: cells [r c] that show the same thing in both."""

    difference: np.ndarray  # [r c 3], levels: what the cells lack of what was expected
    usual: float  # how far such expectations were off before
    usable: np.ndarray
    pixels: np.ndarray  # [h w]: those of usable cells
    spreads: tuple[np.ndarray, np.ndarray]  # [3] each: of those pixels before and after

    @classmethod
    def between(cls, tail: Tail, first: np.ndarray) -> _Joint:
        expected, usual = _outlook(tail.cells)
        difference = expected - _cells(first)
        usable = abs(difference - np.median(difference, axis=(0, 1))).max(-1) <= LOCAL
        (r, c), (h, w) = usable.shape, first.shape[:2]
        pixels = usable[np.arange(h) * r // h][:, np.arange(w) * c // w]
        spreads = _spread(tail.frame, pixels), _spread(first, pixels)
        return cls(difference, usual, usable, pixels, spreads)

    @property
    def contrast(self) -> float:
        return _step(*self.spreads)

    def is_cut(self) -> bool:
        shift = abs(np.median(self.difference, axis=(0, 1))).max()
        gain = abs(np.log(_ratio(*self.spreads))).max()
        return bool((~self.usable).mean() > MOST_CELLS or shift > SHIFT or gain > np.log(GAIN))

    def light(self, first: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """[h w 3] levels that the frame lacks once its contrast is multiplied; zero in the dead zone."""
        lack = self.difference - (gain - 1) * (_cells(first) - first[self.pixels].mean(0))
        lack[~self.usable] = np.median(lack[self.usable], axis=0)
        if _typical(lack[self.usable]) <= max(BRIGHTNESS, TIMES * self.usual):
            return np.zeros_like(first)
        return _resize(lack, *first.shape[:2], "bilinear")


def _spread(frame: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return frame[pixels].std(0, dtype=np.float32) if pixels.any() else np.zeros(3, np.float32)


def _ratio(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """before / after, 1 where a channel is flat: there is no contrast to draw out of it."""
    return np.where(np.minimum(before, after) < 1, 1, before / np.maximum(after, 1)).astype(np.float32)


def is_cut(tail: Tail, first: np.ndarray) -> bool:
    """Whether a video that goes on with the frame `first` [h w 3] shows something else from there on."""
    first = first.astype(np.float32)
    return _Joint.between(tail, first).is_cut() or alike(tail.frame.astype(np.float32), first) < ALIKE


def _match(tail: Tail, first: np.ndarray, frames: int) -> Repair | None:
    """Contrast per channel and brightness per cell, drawn to the tail's; less and less over the ramp."""
    joint = _Joint.between(tail, first)
    usual = max(map(_step, tail.spreads, tail.spreads[1:]), default=0.0)
    gain, mean = np.ones(3, np.float32), first[joint.pixels].mean(0)
    if joint.contrast > max(CONTRAST, TIMES * usual):
        for _ in range(PASSES):
            repaired = first + (gain - 1) * (first - mean) + joint.light(first, gain)
            gain *= _ratio(joint.spreads[0], _spread(repaired, joint.pixels))
    light = joint.light(first, gain)
    if (gain == 1).all() and not light.any():
        return None
    return lambda frame, i: frame + (1 - i / frames) * ((gain - 1) * (frame - mean) + light)


def _crossfade(tail: Tail, first: np.ndarray, frames: int) -> Repair | None:
    """The tail's frame, held, fades out over the first frames: ghosts where something moves, hence less sharp."""
    held = tail.frame.astype(np.float32)
    return lambda frame, i: frame + (frames - i) / (frames + 1) * (held - frame)


REPAIRS = {"match": _match, "crossfade": _crossfade}


def follow(blocks: Iterable[np.ndarray], tail: Tail | None, boundary: Boundary) -> Iterator[np.ndarray]:
    """A chunk's blocks of frames, uint8 [f h w 3], as they go into a video that ends with `tail` (None: it is empty).

    Frames must have the tail's size. After a scene cut nothing is repaired.
    """
    if tail is None:
        yield from blocks
        return
    if boundary.drop_first_frame:
        blocks = _without_first(blocks)
    if boundary.policy == "none":
        yield from blocks
        return
    repair, done = None, 0
    for block in blocks:
        if not done and not is_cut(tail, block[0]):
            repair = REPAIRS[boundary.policy](tail, block[0].astype(np.float32), boundary.frames)
        count = min(len(block), boundary.frames - done) if repair else 0
        yield _repaired(block, repair, count, done) if count > 0 else block
        done += len(block)


def _repaired(block: np.ndarray, repair: Repair, count: int, done: int) -> np.ndarray:
    block = block.copy()
    for i in range(count):
        block[i] = np.rint(repair(block[i].astype(np.float32), done + i)).clip(0, 255)
    return block


def _without_first(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for i, block in enumerate(blocks):
        block = block if i else block[1:]
        if len(block):
            yield block


class Ending:
    """Passes blocks on and keeps what a `Tail` needs of them."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks, self._last = blocks, deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._last.extend(block[-KEPT:])
            yield block

    def tail(self) -> Tail:
        """What the next chunk is joined to."""
        return Tail.of(self._last)
