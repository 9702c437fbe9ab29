"""Small pictures of a segment's last frame, beside its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .video import read_ends

SIDE = 160  # pixels along the longer side


def keep(frame: np.ndarray, segment: Path) -> Path:
    """Writes the picture of a frame, uint8 [h w 3], beside a segment's file; one that is there stays. OSError."""
    from PIL import Image

    path = segment.with_suffix(".jpg")
    if not path.is_file():
        picture = Image.fromarray(frame)
        picture.thumbnail((SIDE, SIDE))
        part = path.with_suffix(".part.jpg")  # not disk.replacing: it waits for the disk, and this may be lost
        picture.save(part, "JPEG", quality=85)
        part.replace(path)
    return path


def read(segment: Path) -> bytes:
    """The JPEG of a segment's last frame, made now where there is none. ValueError for a broken file; OSError."""
    path = segment.with_suffix(".jpg")
    if not path.is_file():
        keep(read_ends(segment, 1)[-1], segment)
    return path.read_bytes()
