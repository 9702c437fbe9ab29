"""Linear layers in quantised forms of ours, kept, moved and patched by ComfyUI. Imported in ComfyUI, on torch."""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy

import comfy.lora
import comfy.ops
import torch
from torch import nn

from ..helios_core.backends.torch import products
from ..helios_core.backends.torch.gguf import widen, width
from ..helios_core.backends.torch.quant import dequantise
from ..helios_core.backends.torch.quantising import SCALE, WEIGHT, ZERO

GELU = {"approximate": "tanh"}
COLUMNS = "columns"  # of a HostQuantLinear: factors of its inputs


class HostQuantLinear(nn.Module, comfy.ops.CastWeightBiasOp):
    """A linear layer in a quantised form of ours (backends/torch/quant.py), kept and moved by ComfyUI.

    patches: ComfyUI's for its weight, which are added to the widened weight as it is used: never to the codes. product:
    what multiplies fp8 without widening it (backends/torch/products.py), where the GPU does and nothing is patched.
    """

    comfy_cast_weights = True
    product = None

    def __init__(self, codes, scale, zero, bias, rotation: int = 0, columns=None):
        super().__init__()
        self.in_features, self.out_features = codes.shape[1] * (1 + (codes.dtype == torch.uint8)), len(codes)
        self.key, self.patches, self.rotation = "", [], rotation
        for name, value in ((WEIGHT, codes), (SCALE, scale), (ZERO, zero), (COLUMNS, columns), ("bias", bias)):
            setattr(self, name, None if value is None else nn.Parameter(value, requires_grad=False))

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.bias.dtype

    def forward(self, x, gelu: bool = False):
        """x [... i] -> [... o], as `Linear`."""
        with without_functions(self), brought(self, self.weight.dtype, x.device, x.dtype) as (codes, bias):
            if self.product is not None:
                return self.product(x, codes, getattr(self, SCALE).to(codes.device), bias, self.rotation, gelu)
            weight = self.widened(codes, x.dtype)
            if self.patches:
                weight = comfy.lora.calculate_weight(self.patches, weight, self.key, intermediate_dtype=weight.dtype)
            y = nn.functional.linear(x, weight, bias)
        return nn.functional.gelu(y, **GELU) if gelu else y

    @property
    def is_fp8(self) -> bool:
        """Whether it can be multiplied in fp8."""
        kept = (getattr(self, name) for name in (WEIGHT, SCALE, ZERO, COLUMNS))
        return self.weight.dtype == products.FP8 and products.fits(*kept, self.rotation)

    def widened(self, codes, dtype: torch.dtype):
        """The weight [o i] of its codes, which are where it computes."""
        kept = (getattr(self, name) for name in (SCALE, ZERO, COLUMNS))
        scale, zero, columns = (t if t is None else t.to(codes.device) for t in kept)
        return dequantise(codes, scale, zero, dtype, self.rotation, columns)

    def convert_weight(self, weight, inplace=False, **_):
        """What ComfyUI patches as it loads, to no effect: something of the weight's shape."""
        return torch.zeros(self.out_features, self.in_features, device=weight.device)

    @property
    def savable(self) -> bool:
        """Whether a file of ours can hold it: nothing is rotated or multiplied after its factors."""
        return (
            not self.rotation
            and self.columns is None
            and (self.weight.dtype != torch.uint8 or self.zero_weight is not None)
        )

    def set_weight(self, weight, inplace_update=False, seed=None, return_weight=False, **_):
        """What ComfyUI patched is dropped. ValueError where it is to be saved."""
        if return_weight:
            raise ValueError(f"{self.key}: a LoRA cannot be saved into quantised weights; load them as bf16 for that")


class HostBlockLinear(HostQuantLinear):
    """The same for a weight in blocks of a GGUF file (backends/torch/gguf.py)."""

    def __init__(self, form: str, codes, bias):
        super().__init__(codes, None, None, bias)
        self.form, self.in_features = form, width(form, codes)

    def widened(self, codes, dtype: torch.dtype):
        """The weight [o i] of its blocks."""
        shape = self.out_features, self.in_features
        return widen(self.form, codes, torch.empty(shape, dtype=dtype, device=codes.device))


@contextmanager
def brought(layer, dtype: torch.dtype, device, bias_dtype: torch.dtype):
    """Weight and bias of a layer of ComfyUI's on a device, patched, until it ends; then their memory may be reused."""
    options = {"dtype": dtype, "device": device, "bias_dtype": bias_dtype}
    release = getattr(comfy.ops, "uncast_bias_weight", None)  # not in 0.3.64, which waits for every copy
    found = comfy.ops.cast_bias_weight(layer, **options, **({} if release is None else {"offloadable": True}))
    try:
        yield found[:2]
    finally:
        if release is not None:
            release(layer, *found)


@contextmanager
def without_functions(layer):
    """Meanwhile ComfyUI has nothing to add to the layer's weight."""
    hidden = {"weight_function": [], "weight_lowvram_function": None}
    before = {name: layer.__dict__.pop(name) for name in hidden if name in layer.__dict__}
    layer.__dict__.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(before)


def moved(patch, device):
    """A patch whose tensors are on a device."""
    if isinstance(patch, torch.Tensor):
        return patch.to(device)
    if isinstance(patch, (list, tuple)):
        return type(patch)(moved(part, device) for part in patch)
    if hasattr(patch, "weights") and hasattr(patch, "loaded_keys"):
        twin = copy(patch)
        twin.weights = moved(patch.weights, device)
        return twin
    return patch
