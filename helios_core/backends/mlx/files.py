"""Tensors out of weights files as MLX arrays, one at a time, so that memory never holds a second copy of them all.

Eight bit numbers and quantised weights, which the torch twin computes with as they are, are widened here.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ...checkpoint import E4M3, Stored, gguf, mapped, unpack, unpacked

FLOATS = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
READ = (*FLOATS, "F64", "F8_E4M3", "F8_E5M2", "I8", "U8")


def read(stored: Stored) -> mx.array:
    """A copy in memory of what the file holds, its factors not applied; eight bit floats as float16.

    ValueError for a type that MLX does not read.
    """
    if stored.dtype not in READ:
        raise ValueError(f"{stored.file}: {stored.key} is {stored.dtype}; MLX reads {', '.join(READ)}")
    data = mapped(stored.file, stored.dtype, stored.stored_shape, stored.start, stored.nbytes)
    if stored.dtype == "BF16":
        return mx.array(data).view(mx.bfloat16)
    if stored.dtype == "F8_E4M3":
        return mx.array(E4M3)[mx.array(data)]
    if stored.dtype == "F8_E5M2":  # the upper half of a float16
        return mx.array(data.astype(np.uint16) << 8).view(mx.float16)
    return mx.array(data.astype(np.float32) if stored.dtype == "F64" else data)


def widen(stored: Stored) -> mx.array:
    """The weight that codes and factors make; float32 if there are factors."""
    if stored.in_gguf:
        return widen_blocks(stored)
    if stored.blocks:
        return mx.array(unpacked.widen(unpack(stored), stored))
    codes = read(stored)
    if stored.scale is None:
        return codes
    scale = read(stored.scale).astype(mx.float32)
    check_factors(stored, scale)
    if stored.zero is not None:
        codes = mx.concatenate([codes & 15, codes >> 4], axis=1)
    if scale.ndim != 2:
        return codes.astype(mx.float32) * scale.reshape(-1, *[1] * (codes.ndim - 1))
    groups = codes.astype(mx.float32).reshape(*scale.shape, -1) * scale[..., None]
    if stored.zero is not None:
        groups = groups + read(stored.zero).astype(mx.float32)[..., None]
    return groups.reshape(codes.shape)


def widen_blocks(stored: Stored) -> mx.array:
    """The float32 numbers of GGUF's blocks, by the gguf package. ValueError where that is not installed."""
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError as error:
        raise ValueError(f"{stored.file}: to read GGUF with MLX, install {gguf.EXTRA}") from error
    codes = stored.codes
    data = mapped(codes.file, codes.dtype, codes.shape, codes.start, codes.nbytes)
    return mx.array(dequantize(data, GGMLQuantizationType[stored.dtype]).reshape(stored.shape))


def as_float32(stored: Stored) -> np.ndarray:
    """The float32 numbers of a stored weight, its factors applied."""
    return np.array(widen(stored).astype(mx.float32))


def check_factors(stored: Stored, *factors: mx.array | None) -> None:
    """ValueError for NaN or infinity among them."""
    if not all(bool(mx.isfinite(part).all()) for part in factors if part is not None):
        raise ValueError(f"{stored.file}: factors of {stored.key} are NaN or infinite; download the file again")


def check_finite(name: str, stored: Stored) -> None:
    """ValueError for NaN or infinity."""
    if not bool(mx.isfinite(widen(stored)).all()):
        raise ValueError(f"{name} holds NaN or infinity; the checkpoint is broken, download it again")


def channels_last(tensor: mx.array) -> mx.array:
    """A published convolution's kernel [o i (t) h w] as MLX has it, [o (t) h w i]; all else as it is."""
    return mx.contiguous(mx.moveaxis(tensor, 1, -1)) if tensor.ndim > 3 else tensor


def published_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the files have for a parameter of that shape here: a kernel's channels come second there, last here."""
    first, *rest = shape
    return (first, rest[-1], *rest[:-1]) if len(shape) > 3 else tuple(shape)
