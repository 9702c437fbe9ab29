"""Resampling along height and width as a product with one small matrix per axis, for torch, MLX and numpy alike.

A row of a matrix holds the weights of one output position over the input's; every row sums to 1. "bilinear",
"bilinear_aligned" (align_corners) and "bicubic" (a = -0.75) are torch's `interpolate` to a given size, antialias off,
and "nearest" is its nearest: they look at the few pixels around a point and skip the rest. "area" is average pooling
for whole factors, dropping the rows that are left over, and torch's "area" for fractions, whose cells overlap.
"lanczos" is a windowed sinc of 3 lobes, stretched by the factor so that every pixel counts (Pillow's LANCZOS).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from einops import rearrange, reduce

KERNELS = ("area", "bilinear", "bilinear_aligned", "nearest", "bicubic", "lanczos")
CUBIC = -0.75
LOBES = 3


def reduced(size: int, factor: int | Fraction) -> int:
    """Positions left of `size`: what does not fill one whole is dropped."""
    return int(size // Fraction(factor))


def shrink(x, factor: int | Fraction, kernel: str = "area"):
    """[b c t h w] -> [b c t h//factor w//factor] in x's dtype, on x's device."""
    *_, h, w = x.shape
    factor = Fraction(factor)
    if factor == 1:
        return x
    if kernel == "area" and factor.denominator == 1:
        f = int(factor)
        x = x[..., : h // f * f, : w // f * f]
        return reduce(x, "b c t (h fh) (w fw) -> b c t h w", "mean", fh=f, fw=f)
    rows, columns = (like(matrix(kernel, size, factor, precision(x)), x) for size in (h, w))
    x = rearrange(x, "b c t h w -> b c t w h") @ rows.T
    return rearrange(x, "b c t w h -> b c t h w") @ columns.T


def precision(x) -> str:
    """Of an array's positions. torch rounds them to the array's dtype, which shows in the fifth decimal."""
    return "float64" if "float64" in str(x.dtype) else "float32"


def like(values: np.ndarray, x):
    """numpy values as an array of x's framework, dtype and device."""
    if isinstance(x, np.ndarray):
        return values.astype(x.dtype)
    if hasattr(x, "new_tensor"):  # torch
        return x.new_tensor(values)
    return type(x)(values.astype(np.float32)).astype(x.dtype)


@lru_cache(maxsize=256)
def matrix(kernel: str, size: int, factor: int | Fraction, precision: str = "float64") -> np.ndarray:
    """Weights [reduced size, size] in float64, not to be written to. precision: of the positions, see `precision`."""
    out = reduced(size, factor)
    if size == out:
        made = np.eye(size)
    elif kernel == "area":
        made = _area(size, out, Fraction(factor))
    elif kernel == "lanczos":
        made = _lanczos(size, out)
    elif kernel == "nearest":
        made = _scatter(_nearest(size, out)[:, None], np.ones((out, 1)), size)
    else:
        made = _scatter(*_interpolated(kernel, size, out, np.dtype(precision).type), size)
    made.setflags(write=False)
    return made


def _scatter(places: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Matrix of taps, places and weights [out, taps]. Places beyond an edge mean the edge."""
    made = np.zeros((len(places), size))
    rows = np.broadcast_to(np.arange(len(places))[:, None], places.shape)
    np.add.at(made, (rows, places.clip(0, size - 1)), weights)
    return made


def _area(size: int, out: int, factor: Fraction) -> np.ndarray:
    made = np.zeros((out, size))
    for i in range(out):
        first, last = i * size // out, -(-(i + 1) * size // out)
        if factor.denominator == 1:
            first, last = i * int(factor), (i + 1) * int(factor)
        made[i, first:last] = 1 / (last - first)
    return made


def _nearest(size: int, out: int) -> np.ndarray:
    """torch takes single precision here whatever the dtype: it decides where i * size / out is a whole number."""
    return np.floor(np.arange(out, dtype=np.float32) * (np.float32(size) / np.float32(out))).astype(int)


def _interpolated(kernel: str, size: int, out: int, real) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of torch's bilinear and bicubic. real: the type that torch rounds positions to."""
    i = np.arange(out, dtype=np.float64)
    if kernel == "bilinear_aligned":
        at = real(real(size - 1) / real(out - 1) if out > 1 else 0) * i.astype(real)
    else:
        scale = np.float64(real(size) / real(out))
        at = (scale * (i + 0.5) - 0.5).astype(real)  # rounded once, as a fused multiply-add does
    if kernel != "bicubic":
        at = np.maximum(at, real(0))
    low = np.floor(at)
    t = (at - low).astype(np.float64)[:, None]
    low = low.astype(int)[:, None]
    if kernel != "bicubic":
        return low + np.arange(2), np.concatenate([1 - t, t], axis=1)
    return low + np.arange(-1, 3), np.concatenate([_far(1 + t), _near(t), _near(1 - t), _far(2 - t)], axis=1)


def _near(d: np.ndarray) -> np.ndarray:
    """The cubic kernel at distances up to 1."""
    return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1


def _far(d: np.ndarray) -> np.ndarray:
    """The cubic kernel at distances from 1 to 2."""
    return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC


def _lanczos(size: int, out: int) -> np.ndarray:
    scale = size / out
    centres = (np.arange(out) + 0.5) * scale
    d = (np.arange(size) + 0.5 - centres[:, None]) / scale
    weights = np.where(abs(d) < LOBES, np.sinc(d) * np.sinc(d / LOBES), 0)
    return weights / weights.sum(axis=1, keepdims=True)
