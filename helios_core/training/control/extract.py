"""Control videos out of the clips themselves: edges, a blurred grey picture, masks of what moves, and its tracks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

MOVED = 0.12  # of full brightness: how far from the clip's still picture a pixel is part of what moves
LEAST = 0.0005  # share of a frame that a moving part must have to be tracked
DISC = 0.09  # of the shorter side: a track's radius


def grey(frames: np.ndarray) -> np.ndarray:
    """Brightness [t h w] in 0..1 of uint8 frames [t h w 3]."""
    return frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255


def as_pictures(values: np.ndarray) -> np.ndarray:
    """uint8 [t h w 3] of values [t h w] in 0..1."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)


def edges(frames: np.ndarray) -> np.ndarray:
    """Where brightness changes: the gradient's length, as bright as four times that."""
    across, down = np.gradient(grey(frames), axis=2), np.gradient(grey(frames), axis=1)
    return as_pictures(4 * np.hypot(across, down))


def blobs(frames: np.ndarray) -> np.ndarray:
    """Brightness, blurred by a sixteenth of the shorter side: what is where, not what it is."""
    blur = ImageFilter.GaussianBlur(min(frames.shape[1:3]) / 16)
    rows = [np.asarray(Image.fromarray(frame).convert("L").filter(blur)) for frame in frames]
    return np.stack(rows)[..., None].repeat(3, axis=-1)


def moving(frames: np.ndarray) -> np.ndarray:
    """Whether a pixel [t h w] is apart from the clip's median picture, which shows what stands still."""
    values = frames.astype(np.float32) / 255
    return abs(values - np.median(values, axis=0)).max(axis=-1) > MOVED


def masks(frames: np.ndarray) -> np.ndarray:
    """What moves in white, on black. What fills a place for most of the clip counts as its background."""
    return as_pictures(moving(frames).astype(np.float32))


def tracks(frames: np.ndarray) -> np.ndarray:
    """A white disc at the centre of what moves, on black; black where nothing does."""
    there = moving(frames)
    t, h, w = there.shape
    y, x = np.mgrid[:h, :w] + 0.5
    out = np.zeros((t, h, w), np.float32)
    for frame, mask in zip(out, there):
        if mask.mean() >= LEAST:
            apart = np.hypot(x - x[mask].mean(), y - y[mask].mean())
            frame[:] = np.clip(0.5 + DISC * min(h, w) - apart, 0, 1)
    return as_pictures(out)


EXTRACTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "edges": edges,
    "blobs": blobs,
    "masks": masks,
    "tracks": tracks,
}
