"""Weights into GGUF's blocks: by the gguf package where it has a quantiser, else here, for Q4_K, Q5_K and Q6_K.

The K types keep the factors of 8 or 16 groups in six or eight bits each. Factors are fitted to the codes by least
squares, then rounded as they are stored, and the codes made anew for them. llama.cpp searches longer, and weighs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..checkpoint.gguf import BLOCKS, EXTRA

BY_PACKAGE = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
OWN = ("q6_k", "q5_k", "q4_k")
KINDS = (*BY_PACKAGE, *OWN)
NO_QUANTISER = tuple(name.lower() for name in BLOCKS if name.lower() not in KINDS)
FITS = 3
AT_ONCE = 1 << 18  # weights: what stays in the cache


def package():
    """The gguf package. ValueError where it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise ValueError(f"to write GGUF, install {EXTRA}") from error
    return gguf


def check_kind(kind: str) -> None:
    """ValueError for a type that nothing here makes."""
    package()
    if kind not in KINDS:
        read = "; it is read, but made by llama.cpp's llama-quantize only" if kind in NO_QUANTISER else ""
        raise ValueError(f"{kind} cannot be written into GGUF{read}. Choose one of {', '.join(KINDS)}")


def quantise(w: np.ndarray, kind: str) -> np.ndarray:
    """A weight [o i] in float32 -> its blocks' bytes, one after the other. kind: one of KINDS."""
    columns, _ = BLOCKS[kind.upper()]
    rows = np.ascontiguousarray(w, dtype=np.float32).reshape(-1, columns)
    parts = np.array_split(rows, max(1, rows.size // AT_ONCE))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(lambda part: _some(part, kind), parts)))


def _some(blocks: np.ndarray, kind: str) -> np.ndarray:
    if kind in OWN:
        return q6_k(blocks) if kind == "q6_k" else q45_k(blocks, 5 if kind == "q5_k" else 4)
    made = package()
    found = made.quantize(blocks.reshape(1, -1), made.GGMLQuantizationType[kind.upper()])  # as one row: at once
    return found.reshape(len(blocks), -1)


def divide(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    """x / by, and 0 where that is 0."""
    return np.divide(x, by, out=np.zeros(np.broadcast_shapes(x.shape, by.shape), np.float32), where=by != 0)


def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [n 1] as float16: their bytes [n 2], and what these stand for."""
    stored = x.astype(np.float16)
    return stored.view(np.uint8).reshape(len(x), 2), stored.astype(np.float32)


def fit(x: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor and zero of least squares for given codes; where all codes are one, the old factor."""
    mean, level = x.mean(-1, keepdims=True), codes.mean(-1, keepdims=True)
    spread = np.square(codes - level).sum(-1, keepdims=True)
    fitted = divide(((codes - level) * (x - mean)).sum(-1, keepdims=True), spread)
    scale = np.where(spread > 1e-6, fitted, scale)
    return scale, mean - scale * level


def q45_k(blocks: np.ndarray, bits: int) -> np.ndarray:
    """Blocks of 256 columns [n 256] as Q4_K or Q5_K: 8 groups of 32, code * factor - zero, factor and zero >= 0."""
    x, top = blocks.reshape(-1, 8, 32), 2**bits - 1
    low = np.minimum(x.min(-1, keepdims=True), 0)
    scale = (np.maximum(x.max(-1, keepdims=True), low) - low) / top
    for _ in range(FITS):
        codes = np.clip(np.rint(divide(x - low, scale)), 0, top)
        scale, low = fit(x, codes, scale)
        scale, low = np.maximum(scale, 0), np.minimum(low, 0)
    d, factor = halves(scale.max(1) / 63)
    dmin, zero = halves(-low.min(1) / 63)
    six = [np.clip(np.rint(divide(v[..., 0], by)), 0, 63) for v, by in ((scale, factor), (-low, zero))]
    scale, low = (factor * six[0])[..., None], (zero * six[1])[..., None]
    codes = np.clip(np.rint(divide(x + low, scale)), 0, top).astype(np.uint8)
    parts = [d, dmin, pack_six(*(s.astype(np.uint8) for s in six))]
    if bits == 5:
        parts.append(pack(codes.reshape(-1, 256) >> 4, 32, 1))
    return np.concatenate([*parts, pack(codes.reshape(-1, 256) & 15, 32, 4)], axis=1)


def q6_k(blocks: np.ndarray) -> np.ndarray:
    """Blocks of 256 columns [n 256] as Q6_K: 16 groups of 16, factors of int8."""
    x = blocks.reshape(-1, 16, 16)
    most = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)
    scale = most / -32
    for _ in range(FITS):
        codes = np.clip(np.rint(divide(x, scale)), -32, 31)
        squares = np.square(codes).sum(-1, keepdims=True)
        scale = np.where(squares > 0, divide((codes * x).sum(-1, keepdims=True), squares), scale)
    d, factor = halves(np.abs(scale).max(1) / 127)
    eight = np.clip(np.rint(divide(scale[..., 0], factor)), -128, 127)
    codes = np.clip(np.rint(divide(x, (factor * eight)[..., None])), -32, 31).astype(np.int8) + np.int8(32)
    codes = codes.view(np.uint8).reshape(-1, 256)
    return np.concatenate(
        [pack(codes & 15, 64, 4), pack(codes >> 4, 32, 2), eight.astype(np.int8).view(np.uint8), d], 1
    )


def pack(codes: np.ndarray, run: int, bits: int) -> np.ndarray:
    """Codes [n k] into bytes [n k*bits/8]: the first run of them in the lowest bits, the next above; see
    backends/torch/gguf.py, `spread`."""
    parts = codes.reshape(len(codes), -1, 8 // bits, run)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(parts << shifts, axis=2).reshape(len(codes), -1)


def pack_six(scale: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Factors and zeros of 8 groups, six bits each, into 12 bytes."""
    first = [half[:, :4] | half[:, 4:] >> 4 << 6 for half in (scale, low)]
    return np.concatenate([*first, scale[:, 4:] & 15 | (low[:, 4:] & 15) << 4], axis=1)
