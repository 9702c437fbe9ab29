"""A transformer's weights into its modules: read, cast or quantised one tensor at a time, joined block by block.

So that host memory never holds a second copy: what is used as stored stays mapped, what is joined (the query, key and
value layers of self-attention) is read straight into memory of its own, and a block is joined before the next is read.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from ...checkpoint import GGUF, QUANTISED, Source, Stored, is_float32, is_quantised
from .blocks import BlockLinear
from .files import STORED, Files
from .quant import SCALE, ZERO, QuantLinear, place, quantise
from .transformer import HeliosTransformer

JOINED = ("attn1.to_q.", "attn1.to_k.", "attn1.to_v.")


def load_transformer_weights(model: HeliosTransformer, source: Source, *, dtype: torch.dtype, kind: str | None, device):
    """Reads every tensor of a model that is on meta, and joins its projections. kind: see precision.find_kind."""
    files = Files()
    for block, names in groupby(list(model.state_dict()), _block):
        for layer, own in groupby(names, lambda name: name.rpartition(".")[0]):
            _fill_layer(model, layer, list(own), source, files, dtype, kind, device)
        if block is not None:
            model.blocks[block].attn1.fuse()
    return model.requires_grad_(False).eval()


def _block(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("blocks.") else None


def _fill_layer(model, layer: str, names: list[str], source: Source, files: Files, dtype, kind, device) -> None:
    module = model.get_submodule(layer)
    for name in names:
        if kind is not None and is_kept(name, source.tensors[name], kind):
            continue
        wanted = torch.float32 if is_float32(name) else dtype
        tensor = files.read(source.tensors[name], wanted, device, own=any(part in name for part in JOINED))
        setattr(module, name.rpartition(".")[2], nn.Parameter(tensor, requires_grad=False))
    name = f"{layer}.weight"
    if kind is not None and is_quantised(name) and is_kept(name, source.tensors[name], kind):
        place(model, layer, quantised_layer(name, source.tensors[name], module.bias.detach(), files, kind, device))


def is_kept(name: str, stored: Stored, kind: str) -> bool:
    """Whether a weight is, or becomes, a quantised layer's. In GGUF files some of them may be plain."""
    return is_quantised(name) and (kind != GGUF or stored.in_blocks)


def quantised_layer(name: str, stored: Stored, bias: Tensor, files: Files, kind: str, device) -> nn.Module:
    """The layer of such a weight."""
    if kind == GGUF:
        return BlockLinear([(stored.dtype, files.read(stored.codes, torch.uint8, device))], bias)
    return QuantLinear(*quantised_parts(name, stored, files, kind, device), bias)


def quantised_parts(name: str, stored: Stored, files: Files, kind: str, device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes, scale and zero of a weight in a quantised form: as stored, or made from a stored weight on `device`."""
    if stored.dtype not in QUANTISED.values():
        parts = quantise(name, files.read(stored, STORED[stored.dtype], device, own=True), kind)
        layer = name.removesuffix("weight")
        return parts[name], parts[layer + SCALE], parts.get(layer + ZERO)
    codes, scale, zero = (
        part and files.read(part.codes, STORED[part.dtype], device) for part in (stored, stored.scale, stored.zero)
    )
    if kind == "fp8_e4m3fn":  # other makers store one factor per layer, or none
        scale = torch.ones(1, device=device) if scale is None else scale
        scale = scale.float().reshape(-1, 1).expand(len(codes), 1).contiguous()
    return codes, scale, zero
