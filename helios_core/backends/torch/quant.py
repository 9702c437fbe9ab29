"""Weights of linear layers in 8 or 4 bits, widened to the compute type for every product.

A quantised weight [o i] is stored as up to three tensors, in modules and in files alike:
- weight: float8_e4m3fn [o i]; int8 [o i]; or uint8 [o i/2], column j in the low and column j + i/2 in the high bits;
- scale_weight: float32 [o 1] for fp8, as ComfyUI's scaled fp8; bfloat16 [o g] for int8 and int4, one per group of
  i/g neighbouring columns;
- zero_weight: bfloat16 [o g], int4 only: what code 0 stands for.
The weight is code * scale + zero. All three join along o, so the query, key and value layers do. Of ComfyUI's forms
(checkpoint/unpacked.py) come layers with factors in float32, int4 without a zero, whose codes are eight too high, and
layers whose columns are rotated, or multiplied, after all that.

Measured on Gaussian weights: relative error .026 for fp8, .0065 for int8 in groups of 128, .084 for int4 in groups of
64. Symmetric int4 has .108, and .095 with the best clipping; the two ends of a group's range fitted to it do better.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from ...checkpoint import hadamard, is_quantised
from . import kernels
from .quantising import SCALE, WEIGHT, ZERO, quantise

AT_ONCE = 1 << 17  # weights that are widened at a time on a CPU, in its cache


@cache
@torch.inference_mode(False)
def turn(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What rotates `size` columns [size size]: made once, for copying it to a device waits."""
    return torch.from_numpy(hadamard(size)).to(device, dtype)


def dequantise(
    codes: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype, rotation: int = 0, columns=None
) -> Tensor:
    """The weight [o i] in `dtype` from its stored tensors; scale of one number or [o] (other makers' fp8) too.

    rotation: columns that are rotated together; 0: none. columns: factors [i], or None. Both are done in float32.
    """
    if rotation or columns is not None:
        w = dequantise(codes, scale, zero, torch.float32)
        if rotation:
            w = (w.view(-1, rotation) @ turn(rotation, w.device, w.dtype)).view(w.shape)
        return (w if columns is None else w * columns).to(dtype)
    if codes.dtype == torch.float8_e4m3fn and codes.device.type == "cpu" and not torch.compiler.is_compiling():
        return widen_fp8(codes, scale, dtype)
    if codes.dtype == torch.uint8:
        w = torch.empty(codes.shape[0], 2 * codes.shape[1], dtype=dtype, device=codes.device)
        w[:, : codes.shape[1]] = codes & 15
        w[:, codes.shape[1] :] = codes >> 4
        if zero is None:
            w -= 8
    else:
        w = codes.to(dtype)
    columns = scale.shape[1] if scale.ndim == 2 else 1
    groups = w.unflatten(1, (columns, -1))
    groups.mul_(scale.reshape(-1, columns, 1))
    if zero is not None:
        groups.add_(zero[..., None])
    return w


def widen_fp8(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`dequantise` of e4m3 on the CPU, some rows at a time and by bits, to the same numbers: torch's own conversion is
    several times slower. Sign, exponent and fraction at their places in a float16 are the number's 256th part."""
    out, columns = torch.empty(codes.shape, dtype=dtype), scale.shape[1] if scale.ndim == 2 else 1
    factors = scale.float().reshape(-1, columns, 1).expand(len(codes), -1, -1)
    step = max(1, AT_ONCE // codes.shape[1])
    for some, factor, into in zip(codes.split(step), factors.split(step), out.split(step), strict=True):
        bits = some.view(torch.int8).to(torch.int16)
        size = bits & 127
        if int(size.max()) == 127:  # NaN, which has no such place
            wide = some.float() / 256
        else:
            wide = ((size << 7) | (bits & -128) << 8).view(torch.float16).float()
        wide.unflatten(1, (columns, -1)).mul_(factor * 256)
        into.copy_(wide)
    return out


class QuantLinear(nn.Module):
    """A linear layer of a quantised weight. `dtype` is that of its inputs, bias and products; `weight` is a copy.

    rotation, columns: as in `dequantise`. product: what multiplies its codes as they are (products.py), or None.
    """

    product = None

    def __init__(
        self, codes: Tensor, scale: Tensor, zero: Tensor | None, bias: Tensor, rotation: int = 0, columns=None
    ):
        super().__init__()
        self.rotation = rotation
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self.register_buffer("columns", columns)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and takes its input as."""
        return self.bias.dtype

    @property
    def weight(self) -> Tensor:
        """The weight [o i] in `dtype`, widened anew."""
        return dequantise(self.codes, self.scale, self.zero, self.dtype, self.rotation, self.columns)

    def rows(self, chosen: Tensor) -> Tensor:
        """Rows [n i] of the weight, float32, by their numbers [n]."""
        codes = self.codes.view(torch.uint8)[chosen].view(self.codes.dtype)  # older torch picks no rows of fp8
        zero = None if self.zero is None else self.zero[chosen]
        return dequantise(codes, self.scale[chosen], zero, torch.float32, self.rotation, self.columns)

    def joins(self, other: nn.Module) -> bool:
        """Whether it and another layer of the same input can be one: of the same form, in the same groups."""
        if type(other) is not type(self) or self.rotation != other.rotation:
            return False
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("codes", "scale", "zero"))
        same = all((a is None) == (b is None) and (a is None or _alike(a, b)) for a, b in pairs)
        return same and self.columns is None and other.columns is None

    @classmethod
    def join(cls, layers: list[QuantLinear]) -> QuantLinear:
        """Layers of one input as one layer of all their outputs."""
        parts = zip(*((layer.codes, layer.scale, layer.zero, layer.bias) for layer in layers), strict=True)
        return cls(*(None if part[0] is None else torch.cat(part) for part in parts), layers[0].rotation)

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o], as `Linear`."""
        if self.product is not None:
            return self.product(x, self.codes, self.scale, self.bias, self.rotation, gelu)
        if self.rotation and self.columns is None and x.numel() // x.shape[-1] < len(self.codes):
            # Fewer rows than the weight has: turned here, for the rotation is its own inverse.
            x = (x.reshape(-1, self.rotation) @ turn(self.rotation, x.device, x.dtype)).view(x.shape)
            return kernels.linear(x, dequantise(self.codes, self.scale, self.zero, self.dtype), self.bias, gelu)
        return kernels.linear(x, self.weight, self.bias, gelu)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape[1:] == b.shape[1:] and a.ndim == b.ndim


def place(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer where the model has one of that dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def quantise_model(model: nn.Module, kind: str, only=is_quantised) -> nn.Module:
    """Quantises the linear layers of attention and feed-forward of a loaded transformer, in place.

    only: name of a weight -> whether to take it, for measurements.
    """
    for name, weight in list(model.named_parameters()):
        if is_quantised(name) and only(name):
            layer = name.removesuffix(".weight")
            parts = quantise(name, weight.detach(), kind)
            bias = model.get_submodule(layer).bias.detach()
            place(model, layer, QuantLinear(*(parts.get(f"{layer}.{part}") for part in (WEIGHT, SCALE, ZERO)), bias))
    return model
