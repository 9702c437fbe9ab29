"""Weights of linear layers in 8 or 4 bits, multiplied as they are by MLX's own kernels on a GPU.

Files hold them in the form that backends/torch/quant.py describes, whichever backend quantised them. Here they are
repacked, exactly: codes of a row side by side in 32 bits, lowest first, and the weight is code * scale + zero for both
forms: int8's codes are raised by 128, so its zero is -128 scales. MLX computes in groups of 32, 64 or 128 columns. A
file's longer groups become several with the same factors; layers with shorter ones are widened. fp8 has no such form.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...checkpoint import (
    GROUP_SIZES,
    KINDS,
    Source,
    Stored,
    group_size,
    kernel_group,
    precision,
    split_kind,
    stored_group,
)
from .arrays import evaluate
from .files import check_factors, read, widen
from .vae_conv import on_cpu

WEIGHT, SCALE, ZERO = "weight", "scale_weight", "zero_weight"
BITS = {"int8": 8, "int4": 4}
REFINEMENTS = 3  # least-squares fits of scale and zero to the codes, as in the torch twin


def check_kind(kind: str) -> None:
    """ValueError for a form that MLX's kernels have not."""
    if split_kind(kind)[0] not in BITS:
        raise ValueError(f"{kind}: MLX has no such layers; choose {', '.join(k for k in KINDS if k[:4] in BITS)}")


def find_kind(source: Source, weight_dtype: str) -> str | None:
    """`precision.find_kind`. ValueError also for a form that MLX's kernels have not."""
    if weight_dtype in KINDS:
        check_kind(weight_dtype)
    return precision.find_kind(source, weight_dtype)


def quantise(name: str, w: mx.array, kind: str) -> dict[str, mx.array]:
    """A weight [o i] as files store it: {name: codes, ...scale_weight: ..., ...zero_weight: ...}.

    name: ends in ".weight". int8's codes are torch's to the bit. ValueError for a kind that MLX has not, for an already
    quantised weight, for NaN or infinity, and for a width that no group of MLX's divides.
    """
    check_kind(kind)
    if not mx.issubdtype(w.dtype, mx.floating):
        raise ValueError(f"{name} is quantised already ({w.dtype}); quantise the original checkpoint instead")
    w, (form, _) = w.astype(mx.float32), split_kind(kind)
    if not bool(mx.isfinite(w).all()):
        raise ValueError(f"{name} holds NaN or infinity; the checkpoint is broken, download it again")
    columns = group_size(kind, w.shape[1])
    if columns not in GROUP_SIZES:
        raise ValueError(f"{name} has {w.shape[1]} columns; MLX quantises multiples of {GROUP_SIZES[0]}: choose bf16")
    layer, parts = name.removesuffix(WEIGHT), ENCODERS[form](w.reshape(len(w), -1, columns))
    evaluate(parts)
    return {layer + suffix: part for suffix, part in parts.items()}


def _int8(groups: mx.array) -> dict[str, mx.array]:
    """groups [o g n], float32, as for all below."""
    scale = _positive(mx.abs(groups).max(axis=2, keepdims=True) / 127).astype(mx.bfloat16)
    codes = mx.clip(mx.round(groups / scale.astype(mx.float32)), -128, 127).astype(mx.int8)
    return {WEIGHT: codes.flatten(1), SCALE: scale[..., 0]}


def _int4(groups: mx.array) -> dict[str, mx.array]:
    low, high = (0.95 * x for x in (groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)))
    scale, zero = (high - low) / 15, low
    for _ in range(REFINEMENTS):
        scale, zero = _fit(groups, _codes(groups, *_rounded(scale, zero)), scale)
    scale, zero = _rounded(scale, zero)
    first, second = mx.split(_codes(groups, scale, zero).flatten(1).astype(mx.uint8), 2, axis=1)
    stored = {SCALE: scale[..., 0].astype(mx.bfloat16), ZERO: zero[..., 0].astype(mx.bfloat16)}
    return {WEIGHT: first | second << 4, **stored}


def _codes(groups: mx.array, scale: mx.array, zero: mx.array) -> mx.array:
    return mx.clip(mx.round((groups - zero) / scale), 0, 15)


def _rounded(scale: mx.array, zero: mx.array) -> tuple[mx.array, mx.array]:
    """As they are stored, so that the codes make up for it."""
    return tuple(x.astype(mx.bfloat16).astype(mx.float32) for x in (_positive(scale), zero))


def _positive(scale: mx.array) -> mx.array:
    """A group of equal numbers has no range; any factor serves it."""
    return mx.where(scale > 1e-30, scale, 1.0)


def _fit(groups: mx.array, codes: mx.array, scale: mx.array) -> tuple[mx.array, mx.array]:
    """The scale and zero of least squares for given codes; where all codes are one, the old scale."""
    mean, level = groups.mean(axis=2, keepdims=True), codes.mean(axis=2, keepdims=True)
    codes = codes - level
    spread = codes.square().sum(axis=2, keepdims=True)
    fitted = (codes * (groups - mean)).sum(axis=2, keepdims=True) / mx.maximum(spread, 1e-6)
    scale = mx.where(spread > 1e-6, fitted, scale)
    return scale, mean - scale * level


ENCODERS = {"int8": _int8, "int4": _int4}


def pack(codes: mx.array, scale: mx.array, zero: mx.array | None) -> tuple[mx.array, mx.array, mx.array, int]:
    """A weight as files store it -> codes uint32, scale and zero float32 [o g], and the bits of a code.

    scale may also be one number, or one per row. ValueError where MLX has no group of that length.
    """
    if codes.dtype == mx.uint8:
        both = mx.concatenate([codes & 15, codes >> 4], axis=1)
        codes, width, bits = both[:, ::2] | both[:, 1::2] << 4, both.shape[1], 4
    else:
        codes, width, bits = codes.view(mx.uint8) ^ 128, codes.shape[1], 8
    scale = scale.astype(mx.float32).reshape(-1, scale.shape[1] if scale.ndim == 2 else 1)
    zero = -128 * scale if zero is None else zero.astype(mx.float32)
    long = width // scale.shape[1]
    size = kernel_group(long)
    if size is None:
        raise ValueError(f"groups of {long} columns; MLX has multiples of {GROUP_SIZES[0]} only")
    scale, zero = (mx.repeat(mx.broadcast_to(x, (len(codes), x.shape[1])), long // size, axis=1) for x in (scale, zero))
    return mx.contiguous(codes).view(mx.uint32), scale, zero, bits


def quantised_bytes(name: str, stored: Stored, kind: str) -> Iterator[tuple[str, list]]:
    """A stored weight in fewer bits: the names and bytes of what it becomes."""
    for key, part in quantise(name, widen(stored), kind).items():
        yield key, [np.array(part.view(mx.uint8))]


class QuantLinear(nn.Module):
    """A linear layer of a quantised weight. `dtype` is that of its inputs, bias and products; `weight` is a copy."""

    def __init__(self, codes: mx.array, scale: mx.array, zero: mx.array, bits: int, bias: mx.array):
        super().__init__()
        # float16 would lose small factors; mixed with float32 ones, MLX computes the product in float32.
        kept = bias.dtype if bias.dtype == mx.bfloat16 else mx.float32
        self.codes, self.scale, self.zero = codes, scale.astype(kept), zero.astype(kept)
        self.bits, self.bias = bits, bias

    @property
    def dtype(self) -> mx.Dtype:
        """What it computes in, and takes its input as."""
        return self.bias.dtype

    @property
    def how(self) -> dict[str, int]:
        """What MLX's quantised functions must be told of the codes."""
        columns = self.codes.shape[1] * 32 // self.bits
        return {"group_size": columns // self.scale.shape[1], "bits": self.bits}

    @property
    def weight(self) -> mx.array:
        """The weight [o i] in `dtype`, widened anew."""
        scale, zero = (x.astype(mx.float32) for x in (self.scale, self.zero))
        return mx.dequantize(self.codes, scale, zero, **self.how).astype(self.dtype)

    def joins(self, other: nn.Module) -> bool:
        """Whether it and another layer of the same input can be one: of the same form, in the same groups."""
        return type(other) is type(self) and other.how == self.how

    @classmethod
    def join(cls, layers: list[QuantLinear]) -> QuantLinear:
        """Layers of one input as one layer of all their outputs."""
        parts = zip(*((layer.codes, layer.scale, layer.zero) for layer in layers), strict=True)
        bias = mx.concatenate([layer.bias for layer in layers])
        return cls(*map(mx.concatenate, map(list, parts)), layers[0].bits, bias)

    def __call__(self, x: mx.array) -> mx.array:
        """x [... i] -> [... o], as `Linear`."""
        if on_cpu():  # whose kernel adds up in bfloat16 and is no faster
            return mx.addmm(self.bias, x, self.weight.T)
        y = mx.quantized_matmul(x, self.codes, self.scale, self.zero, transpose=True, **self.how)
        return y.astype(self.dtype) + self.bias


def can_keep(stored: Stored) -> bool:
    """Whether a stored weight is of a form and of groups that MLX computes with."""
    return stored.scale is not None and stored.kept in BITS and kernel_group(stored_group(stored)) is not None


def read_layer(stored: Stored, bias: mx.array) -> QuantLinear:
    """The layer of a weight that a file holds quantised."""
    parts = [part and read(part.codes) for part in (stored, stored.scale, stored.zero)]
    check_factors(stored, *parts[1:])
    return QuantLinear(*pack(*parts), bias)


def make_layer(name: str, weight: mx.array, kind: str, bias: mx.array) -> QuantLinear:
    """The layer of a weight that is quantised now."""
    layer, parts = name.removesuffix(WEIGHT), quantise(name, weight, kind)
    return QuantLinear(*pack(parts[name], parts[layer + SCALE], parts.get(layer + ZERO)), bias)
