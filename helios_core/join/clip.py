"""Chunks of video on disk: each finished chunk is one playable file, and joining copies packets.

A minute of video therefore costs constant memory, and a run that is stopped or killed leaves every finished chunk in
its folder (and of the chunk in hand, in a file named .part.mp4, all but the last quarter second).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from . import video
from .boundary import Boundary, Ending, Tail, follow


@dataclass(frozen=True)
class Segment:
    """One finished chunk: its file and how many frames it holds.

    made: a digest of all that made it and what is before it (kept.py), empty if that is not known.
    """

    path: Path
    frames: int
    made: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Clip:
    """A growing video as a small, immutable handle: `append` makes a new clip and never touches older files.

    folder: where segments are written; fps: frames per second; size: (width, height), None while empty; tail: the
    last frame and what else the next joint needs, None while empty.
    """

    folder: Path
    fps: Fraction = Fraction(video.FPS)
    segments: tuple[Segment, ...] = ()
    size: tuple[int, int] | None = None
    tail: Tail | None = field(default=None, compare=False, repr=False)

    @classmethod
    def new(cls, folder: str | os.PathLike, fps: float | Fraction = video.FPS) -> Clip:
        """An empty clip in `folder`, which is made if need be. ValueError if it cannot be, or for a bad fps."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make the folder {folder}: {error.strerror}; choose another place") from error
        return cls(folder, video.frame_rate(fps))

    @property
    def num_frames(self) -> int:
        """Frames of all segments."""
        return sum(segment.frames for segment in self.segments)

    @property
    def made(self) -> str:
        """A digest of all that made it; empty if that is not known, or for an empty clip."""
        return self.segments[-1].made if self.segments else ""

    @property
    def missing(self) -> list[str]:
        """Names of the segments whose files are gone."""
        return [segment.path.name for segment in self.segments if not segment.path.is_file()]

    def append(self, frames: np.ndarray | Iterable[np.ndarray], boundary: Boundary | None = None) -> Clip:
        """The clip with one more segment: uint8 [f, h, w, 3], or an iterable of such blocks, written as they come.

        boundary: how the chunk is joined to the one before it; None leaves its frames as they are.
        ValueError if size or type do not fit; OSError when the disk fails. Earlier segments stay as they are.
        """
        blocks = self._checked([frames] if isinstance(frames, np.ndarray) else frames)
        ending = Ending(follow(blocks, self.tail, boundary or Boundary()))
        blocks = iter(ending)
        first = next(blocks, None)
        if first is None:
            raise ValueError("a chunk must hold at least one block of frames, and one besides a dropped one; got none")
        size = video.check_frames(first)
        part, path = reserve(self.folder, len(self.segments))
        with video.VideoWriter(part, *size, fps=self.fps, fragmented=True) as writer:
            for block in chain([first], blocks):
                writer.write(block)
        os.replace(part, path)
        segments = (*self.segments, Segment(path, writer.frames))
        return replace(self, segments=segments, size=size, tail=ending.tail())

    def _checked(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            size = video.check_frames(block)
            if self.size not in (None, size):
                raise ValueError(f"the clip's frames are {self.size} (width, height), the new chunk's {size}")
            yield block

    def frames(self) -> Iterator[np.ndarray]:
        """Decodes one frame uint8 [h, w, 3] at a time, over all segments."""
        for segment in self.segments:
            yield from video.iter_frames(segment.path)


def reserve(folder: Path, index: int) -> tuple[Path, Path]:
    """(unfinished, finished) names. New ones: clips that share a past must not overwrite each other's chunks.

    ValueError where no name is left.
    """
    for attempt in range(100_000):
        name = f"chunk_{index:04d}_{attempt}" if attempt else f"chunk_{index:04d}"
        part, path = folder / f"{name}.part.mp4", folder / f"{name}.mp4"
        try:
            part.open("xb").close()
        except FileExistsError:
            continue
        if not path.exists():
            return part, path
        part.unlink()
    raise ValueError(f"{folder} is full of chunks of number {index}; empty it")


def join(
    clip: Clip, path: str | os.PathLike, metadata: dict | None = None, *, num_frames: int = 0, overwrite: bool = True
) -> Path:
    """Writes the clip as one mp4 without encoding again; `path` appears whole or not at all. Returns it.

    metadata: e.g. {"prompt": ..., "workflow": ...}, stored as JSON. num_frames: cut there (0 = all).
    overwrite: replace a file that is there. ValueError if the clip is empty or shorter than num_frames, if a segment is
    gone, and, unless overwrite, if there is a file.
    """
    path = video.check_writable(path)
    if not 0 <= num_frames <= clip.num_frames:
        raise ValueError(f"num_frames must be 0 (all) to {clip.num_frames}, the clip's length, got {num_frames}")
    if missing := clip.missing:
        raise ValueError(f"{clip.folder} no longer holds {missing}; run the chunks again")
    wanted = num_frames or clip.num_frames
    paths = [segment.path for segment in clip.segments]
    written = video.remux(paths, path, metadata=metadata, num_frames=wanted, overwrite=overwrite)
    if written != wanted:
        raise ValueError(f"the segments in {clip.folder} hold {written} frames, the clip says {wanted}; run them again")
    return path


def check_encoder() -> None:
    """ValueError, before the long work, where PyAV was built without the encoder that all videos are written with."""
    import av

    if "libx264" not in av.codecs_available:
        raise ValueError(f"PyAV {av.__version__} of this environment has no libx264; pip install --force-reinstall av")


def published_length(frames: int, per_chunk: int = 33, stride: int = 4) -> int:
    """The frames the published pipelines give when asked for `frames`: 65 for 34.

    Whole chunks, less what does not fill the VAE's temporal stride: floor((33 K - 1) / 4) 4 + 1 for K chunks, which
    leaves out 0 to 3 frames of the last one, and is not a cut to what was asked.
    """
    chunks = max(1, math.ceil(frames / per_chunk))
    return (per_chunk * chunks - 1) // stride * stride + 1
