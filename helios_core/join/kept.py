"""Segments made before: a chunk that is decoded, joined and encoded as it once was is taken from a store of files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..disk import Store, digest, link, replacing
from ..version import VERSION
from . import video
from .boundary import Boundary, Tail
from .clip import Clip, Segment, reserve


def append_kept(
    clip: Clip, blocks: Iterable[np.ndarray], boundary: Boundary, *, made_of: tuple | None, store: Store | None
) -> Clip:
    """`clip.append`; blocks are asked for only if there is no such segment in the store yet, and then it is kept.

    made_of: all that the chunk's frames depend on; None if that is not known. It counts beside all that made the clip
    so far. Errors as `Clip.append`'s.
    """
    if store is None or made_of is None or (clip.segments and not clip.made):
        return clip.append(blocks, boundary)
    key = digest("segment", VERSION, clip.made, clip.fps, boundary, made_of, video.encoding())
    grown = _take(clip, key, store)
    if grown is None:
        grown = clip.append(blocks, boundary)
        last, tail = grown.segments[-1], grown.tail
        held = {"frame": tail.frame, "cells": tail.cells, "spreads": tail.spreads, "frames": np.array(last.frames)}
        held["bytes"] = np.array(last.path.stat().st_size)
        store.keep(key, held, last.path)
    return replace(grown, segments=(*clip.segments, replace(grown.segments[-1], made=key)))


def restore(clip: Clip, store: Store | None) -> None:
    """Puts segments that are gone from the clip's folder back where they were, as far as the store has them whole.

    OSError when the disk fails.
    """
    for segment in clip.segments:
        if store is None or not segment.made or segment.path.is_file():
            continue
        file = store.file(segment.made, ".mp4")
        if file is not None and _frames(file) == segment.frames:
            segment.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(segment.path) as part:
                link(file, part)


def _frames(file: Path) -> int:
    """Frames of a file; 0 of one that is none."""
    try:
        return video.probe(file).frames
    except (OSError, ValueError):
        return 0


def _whole(file: Path, held: dict) -> bool:
    """Whether a segment's file is as long as it was. That takes no time; its frames are counted where it is unknown."""
    if "bytes" in held:
        return file.stat().st_size == held["bytes"].item()
    return _frames(file) == held["frames"].item()


def _link(clip: Clip, file: Path) -> Path:
    """The file's second name in the clip's folder. OSError when the disk fails."""
    part, path = reserve(clip.folder, len(clip.segments))
    try:
        link(file, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # of a disk that failed
    return path


def _take(clip: Clip, key: str, store: Store) -> Clip | None:
    """The clip with the segment of that key; None if there is none, or none that is whole."""
    held, file = store.arrays(key), store.file(key, ".mp4")
    try:
        if held is None or file is None or not _whole(file, held):
            return None
        tail = Tail(held["frame"], held["cells"], held["spreads"])
        path = file if file.parent == clip.folder else _link(clip, file)
    except (KeyError, OSError, ValueError):  # damaged, or gone in this moment: then it is made anew
        return None
    height, width = tail.frame.shape[:2]
    segments = (*clip.segments, Segment(path, held["frames"].item()))
    return replace(clip, segments=segments, size=(width, height), tail=tail)
