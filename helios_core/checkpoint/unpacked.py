"""ComfyUI's quantised layers as codes and factors that both backends multiply; exact. numpy, no framework.

The weight is `(codes * scale + zero)`, its groups of `rotation` columns times H, its columns times `columns`. H is the
Kronecker power of HADAMARD, each of its parts halved: symmetric, and its own inverse. Codes of nvfp4 are twice its
values, which are whole numbers then; asym_w4a8_int8 is rounded to whole numbers by its own definition.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import NamedTuple

import numpy as np

from .marks import MXFP8, NVFP4
from .numbers import as_float32, mapped
from .stored import Marks, Stored

HADAMARD = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float32) / 2
E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # twice the values
AT_ONCE = 1 << 17  # weights
TILE = (128, 4)  # rows and groups of columns in which factors are shuffled


class Unpacked(NamedTuple):
    """codes: int8 [o i]; uint8 [o i/2], column j in the low and j + i/2 in the high bits, eight more than they are
    where there is no zero; None: the 8 bits that the file holds, as they are. Factors are float32: scale [o g], with
    g = 1 or a number that divides i, zero the same or None, columns [i] or None. rotation: columns, 0 is none."""

    codes: np.ndarray | None
    scale: np.ndarray
    zero: np.ndarray | None = None
    rotation: int = 0
    columns: np.ndarray | None = None


def unpack(stored: Stored) -> Unpacked:
    """A weight whose marks say more than a factor. ValueError for factors that are NaN or infinite."""
    parts = {name: _values(part) for name, part in stored.marks.parts}
    found = FORMS[stored.marks.format](stored._replace(shape=stored.filled), stored.marks, parts)
    for factor in (found.scale, found.zero, found.columns):
        if factor is not None and not np.isfinite(factor).all():
            raise ValueError(f"{stored.file}: factors of {stored.key} are NaN or infinite; download the file again")
    return _without_filling(found, stored) if stored.marks.filled else found


def cut(codes, stored: Stored):
    """Codes of any library that the file holds as they are, [o i] or larger -> [o i]."""
    return codes[: stored.shape[0], : stored.shape[1]] if stored.marks and stored.marks.filled else codes


def _without_filling(found: Unpacked, stored: Stored) -> Unpacked:
    """Of forms with factors of groups and no zero (padded.py); the last group may have lost columns."""
    columns, size = stored.shape[1], stored.filled[1] // found.scale.shape[1]
    group = gcd(columns, size)
    scale = np.repeat(found.scale[: stored.shape[0]], size // group, axis=1)[:, : columns // group]
    codes = None if found.codes is None else np.array(cut(found.codes, stored), order="C")
    gains = None if found.columns is None else found.columns[:columns]
    return found._replace(codes=codes, scale=np.array(scale, order="C"), columns=gains)


@cache
def hadamard(size: int) -> np.ndarray:
    """H [size size] float32, for a size that is a power of four."""
    found = np.ones((1, 1), np.float32)
    while len(found) < size:
        found = np.kron(found, HADAMARD)
    return found


def _values(part: Stored) -> np.ndarray:
    """Its numbers as float32; U8 stays as it is, for it stands for what the form says."""
    codes = mapped(part.file, part.dtype, part.shape, part.start, part.nbytes)
    return np.array(codes) if part.dtype in ("U8", "F8_E8M0") else as_float32(codes, part.dtype)


def _bytes(stored: Stored) -> np.ndarray:
    """Two codes to a byte, [o i/2]."""
    rows, columns = stored.shape
    return np.array(mapped(stored.file, "U8", (rows, columns // 2), stored.start, rows * columns // 2))


def _both(packed: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int8 [o i] of packed [o i/2]: for each byte what `low`, of its low bits, stands first, then that of the high."""
    pairs = np.empty((256, 2), np.int8)
    pairs[:, 0], pairs[:, 1] = low[np.arange(256) & 15], high[np.arange(256) >> 4]
    return pairs.view(np.int16)[:, 0][packed].view(np.int8)


def _unswizzle(factors: np.ndarray, rows: int, groups: int) -> np.ndarray:
    """Factors in the order of a GPU's tiles -> [rows groups]: in a tile, row 32 a + b and group c lie at [b a c]."""
    down, across = (-(-n // size) for n, size in zip((rows, groups), TILE, strict=True))
    tiles = factors.reshape(down, across, 32, 4, 4).transpose(0, 3, 2, 1, 4)
    return tiles.reshape(down * TILE[0], across * TILE[1])[:rows, :groups]


def _rows(scale: np.ndarray, stored: Stored) -> np.ndarray:
    return np.array(np.broadcast_to(scale.reshape(-1, 1), (stored.shape[0], 1)))


def _int8(stored: Stored, marks: Marks, parts: dict) -> Unpacked:
    return Unpacked(None, _rows(parts["weight_scale"], stored), rotation=marks.rotation)


def _nvfp4(stored: Stored, _: Marks, parts: dict) -> Unpacked:
    """The high bits are the even column."""
    codes = _bytes(stored)
    swapped = codes >> 4 | codes << 4
    scale = parts["weight_scale"]
    scale = as_float32(scale, "F8_E4M3") if scale.dtype == np.uint8 else scale
    scale = _unswizzle(scale, stored.shape[0], stored.shape[1] // NVFP4) * parts["weight_scale_2"].reshape(())
    columns = parts.get("pre_quant_scale")
    return Unpacked(_both(swapped, E2M1, E2M1), scale / 2, columns=None if columns is None else columns.reshape(-1))


def _mxfp8(stored: Stored, _: Marks, parts: dict) -> Unpacked:
    """A factor's byte is an exponent of two; 255 is NaN, and 0 a zero, as comfy_kitchen has it."""
    exponents = _unswizzle(parts["weight_scale"], stored.shape[0], stored.shape[1] // MXFP8)
    return Unpacked(None, np.ascontiguousarray(exponents.astype(np.uint32) << 23).view(np.float32))


def _w4a4(stored: Stored, marks: Marks, parts: dict) -> Unpacked:
    """Signed; the low bits are the even column."""
    plain = np.arange(16, dtype=np.int8)
    codes = _both(_bytes(stored) ^ 0x88, plain, plain).view(np.uint8)
    half, scale = stored.shape[1] // 2, _rows(parts["weight_scale"], stored)
    return Unpacked(codes[:, :half] | codes[:, half:] << 4, scale, rotation=marks.rotation)


def _w4a8(stored: Stored, marks: Marks, parts: dict) -> Unpacked:
    """Of a table of sixteen values, or signed less eight, times a factor of the group, rounded: int8."""
    relative = parts["weight_s_rel"]
    relative = as_float32(relative, "F8_E4M3") if relative.dtype == np.uint8 else relative
    values = parts.get("weight_codebook", np.arange(-8, 8, dtype=np.float32))
    codes = _grouped(_bytes(stored), values, relative)
    scale, shift = _rows(parts["weight_s_channel"], stored), parts.get("weight_correction")
    if shift is None:
        return Unpacked(codes, scale, rotation=marks.rotation)
    shift = np.array(shift.T, order="C")
    return Unpacked(codes, np.array(np.broadcast_to(scale, shift.shape)), shift, marks.rotation)


def _grouped(packed: np.ndarray, values: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """int8 [o i]: what packed codes [o i/2] stand for, times a factor of the group [o g], rounded. A few rows at a
    time, which stay in the cache."""
    pairs = np.stack([values[np.arange(256) & 15], values[np.arange(256) >> 4]], axis=1).view(np.uint64)[:, 0]
    out = np.empty((len(packed), 2 * packed.shape[1]), np.int8)
    for start in range(0, len(packed), rows := max(1, AT_ONCE // out.shape[1])):
        some = slice(start, start + rows)
        wide = pairs[packed[some]].view(np.float32).reshape(*relative[some].shape, -1)
        wide *= relative[some][..., None]
        np.clip(np.rint(wide, out=wide), -127, 127, out=wide)
        out[some] = wide.reshape(len(wide), -1)
    return out


def _awq(stored: Stored, _: Marks, parts: dict) -> Unpacked:
    """Unsigned less eight; the low bits are the even column."""
    less = np.arange(-8, 8, dtype=np.int8)
    scale, zero = (np.array(parts[name].T, order="C") for name in ("weight_scale", "weight_zeros"))
    return Unpacked(_both(_bytes(stored), less, less), scale, zero)


FORMS = {"int8_tensorwise": _int8, "nvfp4": _nvfp4, "mxfp8": _mxfp8, "convrot_w4a4": _w4a4}
FORMS |= {"asym_w4a8_int8": _w4a8, "awq_w4a16": _awq}


def widen(found: Unpacked, stored: Stored) -> np.ndarray:
    """The weight [o i], float32."""
    if found.codes is None:
        held = mapped(stored.file, stored.dtype, stored.filled, stored.start, stored.nbytes)
        codes = as_float32(np.array(cut(held, stored), order="C"), stored.dtype)
    elif found.codes.dtype == np.uint8:
        codes = np.concatenate([found.codes & 15, found.codes >> 4], axis=1).astype(np.float32) - 8
    else:
        codes = found.codes.astype(np.float32)
    groups = codes.reshape(*found.scale.shape, -1) * found.scale[..., None]
    if found.zero is not None:
        groups = groups + found.zero[..., None]
    if found.rotation:
        groups = groups.reshape(-1, found.rotation) @ hadamard(found.rotation)
    weight = groups.reshape(stored.shape)
    return weight if found.columns is None else weight * found.columns
