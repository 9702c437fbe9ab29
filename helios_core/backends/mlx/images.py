"""Pictures into the VAE: sizes fitted, frames encoded.

Resizing is numpy's and the same filter as the torch twin's (bicubic with a = -0.5, widened where it shrinks), so the
two differ by rounding only.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from einops import rearrange

from .arrays import evaluate, to_array


def fit(frames, width: int, height: int) -> mx.array:
    """Frames [f h w 3], uint8 or floats from 0 to 1 -> float32 [f height width 3].

    Another size is cropped about the centre to the proportions wanted, then resized (bicubic, antialiased); the size
    wanted passes as it is. What lies in the numbers never changes how they are read. ValueError for NaN or infinity.
    """
    return mx.array(np.stack([_fit(np.asarray(frame), width, height) for frame in frames]))


def _fit(x: np.ndarray, width: int, height: int) -> np.ndarray:
    """One frame [h w 3], cropped before it becomes floats, so that large videos cost little."""
    h, w = x.shape[:2]
    inner_h, inner_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    top, left = (h - inner_h) // 2, (w - inner_w) // 2
    x = x if (w, h) == (width, height) else x[top : top + inner_h, left : left + inner_w]
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError("the picture holds NaN or infinity; wanted numbers from 0 to 1: look at the node that made it")
    if (w, h) == (width, height):
        return x
    rows, columns = _bicubic(inner_h, height), _bicubic(inner_w, width)
    return np.clip(np.einsum("yh,hwc,xw->yxc", rows, x, columns, optimize=True), 0, 1)


def _bicubic(old: int, new: int) -> np.ndarray:
    """Matrix [new old] float32 that resizes; a shrinking filter covers as many more of the old."""
    wide = max(old / new, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * (old / new)
    d = np.abs(np.arange(old) + 0.5 - centre) / wide
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def encode(vae, frames) -> tuple[mx.array, mx.array]:
    """Frames [1 + 4n, 8h, 8w, 3] from 0 to 1 -> mean and std of the raw latents, each [1 c 1 + n h w]."""
    x = rearrange(to_array(frames) * 2 - 1, "f h w c -> 1 c f h w")
    mean, logvar = vae.encode(x.astype(vae.dtype))
    mean, std = mean.astype(mx.float32), mx.exp(logvar.astype(mx.float32) / 2)
    evaluate(mean, std)
    return mean, std
