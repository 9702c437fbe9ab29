"""Rotary position tables in numpy: one rotation per pair of channels, over frame, row and column.

History at reduced resolution takes the short term grid's rotations averaged over what a patch covers: cosine and sine
are averaged, not angles, and the shorter vectors are not renormalised. Source: HeliosRotaryPosEmbed, published model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from einops import rearrange


class Window(NamedTuple):
    """All that the rotations of a history depend on: its parts' frame numbers and the chunk's, its short term grid."""

    long_index: tuple[int, ...]
    mid_index: tuple[int, ...]
    short_index: tuple[int, ...]
    current_index: tuple[int, ...]
    height: int
    width: int

    @classmethod
    def of(cls, parts, patch_size: tuple[int, int, int]) -> Window:
        """That of a `history.HistoryParts`, whose short term is cut into patches of that size."""
        h, w = parts.short.shape[3:]
        return cls(*parts[3:7], h // patch_size[1], w // patch_size[2])


def table(frames, height: int, width: int, rope_dim, theta: float) -> np.ndarray:
    """Rotations [t, h, w, d/2] complex64 for frame numbers and a patch grid that starts at (0, 0)."""
    axes = []
    for axis, (positions, dim) in enumerate(zip((frames, range(height), range(width)), rope_dim, strict=True)):
        frequency = theta ** (-np.arange(0, dim, 2) / dim)
        angle = np.asarray(positions, dtype=np.float64)[:, None] * frequency
        shape = [1, 1, 1, dim // 2]
        shape[axis] = len(angle)
        axes.append(np.exp(1j * angle).reshape(shape))
    grid = (len(axes[0]), height, width)
    full = [np.broadcast_to(a, (*grid, a.shape[-1])) for a in axes]
    return np.concatenate(full, axis=-1).astype(np.complex64)


def pool(rotations: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor^3 blocks, the end of each axis repeated up to a multiple: [t h w d] -> [t/f h/f w/f d]."""
    pad = [(0, -size % factor) for size in rotations.shape[:3]]
    padded = np.pad(rotations, [*pad, (0, 0)], mode="edge")
    blocks = rearrange(padded, "(t ft) (h fh) (w fw) d -> t h w (ft fh fw) d", ft=factor, fh=factor, fw=factor)
    return blocks.mean(axis=3)


def history_rotations(parts, height: int, width: int, rope_dim, theta: float) -> np.ndarray:
    """Rotations [n, d/2] of the history tokens (long, mid, short); height, width: the short term patch grid."""
    levels = ((parts.long_index, 4), (parts.mid_index, 2), (parts.short_index, 1))
    rows = [pool(table(index, height, width, rope_dim, theta), factor) for index, factor in levels]
    return np.concatenate([rearrange(r, "t h w d -> (t h w) d") for r in rows])


def current_rotations(index, height: int, width: int, rope_dim, theta: float) -> np.ndarray:
    """Rotations [n, d/2] of the chunk's own tokens; height, width: its patch grid at this stage."""
    return rearrange(table(index, height, width, rope_dim, theta), "t h w d -> (t h w) d")


@lru_cache(maxsize=4)
def grid_rotations(frames: int, height: int, width: int, rope_dim: tuple[int, int, int], theta: float) -> np.ndarray:
    """`current_rotations` of frames 0 to `frames`, kept for the next call; not to be written to."""
    return current_rotations(range(frames), height, width, rope_dim, theta)


def rotations(window: Window | None, grid: tuple[int, int, int], rope_dim, theta: float) -> np.ndarray:
    """Rotations [n, d/2] of a history's tokens, if there is one, then of the chunk's own. grid: the chunk's patches."""
    index = range(grid[0]) if window is None else window.current_index
    own = current_rotations(index, *grid[1:], rope_dim, theta)
    if window is None:
        return own
    return np.concatenate([history_rotations(window, window.height, window.width, rope_dim, theta), own])
