"""Clips as a player shows them: frames uint8 [f h w 3] at a constant rate, and what a file says of itself.

The stream marked as default, turned upright, with square pixels, without the frames that an edit list hides; a variable
rate becomes a constant one by the time stamps. Animated pictures are clips too.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .colour import UNTAGGED, Shown
from .container import frames_of, is_video, open_video, packets_of, shown_stream, square_size
from .fields import whole_frames
from .picture import is_picture, iter_animation, over_black_picture, read_durations
from .times import Times, measure, steady
from .turn import read_turn

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` reads: size in pixels and frames as they are shown, frames per second, codec, pixel format and the
    four colour tags."""

    width: int
    height: int
    frames: int
    fps: Fraction
    codec: str
    pixel_format: str
    colorspace: int
    primaries: int
    transfer: int
    color_range: int


def read_times(path) -> Times:
    """When the frames of a video file are shown, by its packets, without decoding. ValueError if it is damaged."""
    with open_video(path) as file:
        stream = shown_stream(file, path)
        found = [(p.pts, p.duration or 0) for p in packets_of(file, stream, path) if not p.is_discard]
        base, rates = stream.time_base, (stream.average_rate, stream.guessed_rate)
    if any(pts is None for pts, _ in found):  # a bare stream: the rate is what is said, or guessed
        rate = next((Fraction(rate) for rate in rates if rate), Fraction(25))
        return Times(rate, len(found))
    found.sort()
    return measure([pts * base for pts, _ in found], found[-1][1] * base if found else Fraction(0), rates, path)


def _animation_times(path) -> Times:
    durations = read_durations(path)
    starts = [sum(durations[:i], Fraction(0)) for i in range(len(durations))]
    return measure(starts, durations[-1], [1 / min(durations)], path)


def _animation_frames(path) -> Iterator[tuple[Fraction, np.ndarray]]:
    time = Fraction(0)
    for pixels, seconds in iter_animation(path):
        yield time, pixels
        time += seconds


def _shown_frames(path) -> Iterator[tuple[Fraction, np.ndarray]]:
    """(seconds, pixels) of every frame of a video file."""
    with open_video(path) as file:
        stream = shown_stream(file, path)
        show = Shown(stream, path)
        for frame in whole_frames(frames_of(file, stream, path), path):
            yield (frame.pts or 0) * (frame.time_base or stream.time_base), show(frame)


def iter_frames(path) -> Iterator[np.ndarray]:
    """Decodes one frame [h, w, 3] at a time, so that a long video costs constant memory. ValueError if it cannot."""
    if is_picture(path):
        times, frames = _animation_times(path), _animation_frames(path)
    else:
        times, frames = read_times(path), _shown_frames(path)
    yield from steady(frames, times) if times.variable else (pixels for _, pixels in frames)


def read_picture(path) -> np.ndarray:
    """uint8 [h w 3] of a picture, or the first one of an animation or a video. ValueError, with the file's name."""
    if is_picture(path):
        return over_black_picture(path)
    if not is_video(path):
        raise ValueError(f"{path} is neither a picture nor a video that can be read; wanted such as PNG, JPEG or MP4")
    for _, pixels in _shown_frames(path):
        return pixels
    raise ValueError(f"{path} has no frames")


def read_frames(path, *, start: int = 0, count: int = 0) -> np.ndarray:
    """Frames `start` to `start + count` (0 = to the end) as uint8 [f, h, w, 3]. ValueError if there are none."""
    kept = []
    for i, frame in enumerate(iter_frames(path)):
        if i >= start:
            kept.append(frame)
        if count and len(kept) == count:
            break
    if not kept:
        raise ValueError(f"{path} has no frame {start}")
    return np.stack(kept)


def read_ends(path, last: int) -> np.ndarray:
    """The first frame and the last `last` ones, uint8 [f, h, w, 3]; all of a video that has no more.

    ValueError for a video without frames.
    """
    kept, first, count = deque(maxlen=last), None, 0
    for frame in iter_frames(path):
        first = frame if first is None else first
        kept.append(frame)
        count += 1
    if first is None:
        raise ValueError(f"{path} has no frames")
    return np.stack([first, *kept] if count > last else kept)


def probe(path) -> VideoInfo:
    """Reads a file's properties; counts frames by their packets and decodes only the first. ValueError if it cannot."""
    if is_picture(path):
        times, (pixels, _) = _animation_times(path), next(iter_animation(path))
        height, width = pixels.shape[:2]
        return VideoInfo(width, height, times.frames, times.rate, "picture", "rgb24", *(UNTAGGED,) * 4)
    times = read_times(path)
    with open_video(path) as file:
        stream = shown_stream(file, path)
        frame = next(iter(frames_of(file, stream, path)), None)
        if frame is None:
            raise ValueError(f"{path} has no frames")
        codec = stream.codec_context
        square = square_size(frame.width, frame.height, stream.sample_aspect_ratio, path)
        tags = (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
        size = read_turn(frame, path).size(*square)
        return VideoInfo(*size, times.frames, times.rate, codec.name, codec.pix_fmt, *map(int, tags))


def read_metadata(path) -> dict:
    """The container's metadata; values that are JSON objects or lists (`prompt`, `workflow`) come back parsed."""
    with open_video(path) as file:
        items = dict(file.metadata).items()
    return {key: _parsed(value) for key, value in items}


def _parsed(value: str):
    try:
        return json.loads(value) if value[:1] in ("{", "[") else value
    except json.JSONDecodeError:  # text that happens to start with a bracket
        return value
