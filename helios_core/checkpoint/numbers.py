"""Numbers of the safetensors format as numpy arrays; bfloat16 and eight bit floats, which numpy lacks, are made."""

from __future__ import annotations

import numpy as np

NUMPY = {
    **{"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F64": np.float64},
    **{"F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "F8_E8M0": np.uint8, "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8},
    **{f"{sign}{bits}": f"{sign.lower()}{bits // 8}" for sign in "IU" for bits in (16, 32, 64)},
}


def _e4m3() -> np.ndarray:
    """What the 256 codes of float8 e4m3fn stand for; float16 holds them exactly."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    values = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0))
    values[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -values, values).astype(np.float16)


E4M3 = _e4m3()


def mapped(file, dtype: str, shape: tuple[int, ...], start: int, nbytes: int) -> np.ndarray:
    """A tensor's codes in a file, read when they are touched."""
    data = np.memmap(file, mode="r", offset=start, shape=(nbytes,)) if nbytes else np.zeros(0, np.uint8)
    return np.require(data.view(NUMPY[dtype]), requirements="A").reshape(shape)


def as_float32(codes: np.ndarray, dtype: str) -> np.ndarray:
    """What the codes stand for, in memory of its own."""
    if dtype == "BF16":
        return (codes.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return E4M3[codes].astype(np.float32)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    return codes.astype(np.float32)


def as_bytes(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """float32 numbers as the bytes of F32, F16 or BF16, rounded to the nearest, halves to even; none is NaN."""
    if dtype != "BF16":
        return np.ascontiguousarray(numbers.astype(NUMPY[dtype])).reshape(-1).view(np.uint8)
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32).reshape(-1)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16).view(np.uint8)
