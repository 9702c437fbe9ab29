"""A transformer's weights into its modules: read, cast or quantised one tensor at a time, joined block by block.

So that host memory never holds a second copy: what is used as stored stays mapped, what is joined (the query, key and
value layers of self-attention) is read straight into memory of its own, and a block is joined before the next is read.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from ...checkpoint import Source, Stored, cut, is_float32, is_kept, tell, unpack
from .ahead import Ahead
from .files import STORED, Files, check_factors, tensors
from .gguf import BlockLinear
from .quant import QuantLinear, place
from .quantising import SCALE, ZERO, quantise
from .transformer import HeliosTransformer

JOINED = ("attn1.to_q.", "attn1.to_k.", "attn1.to_v.")


def load_transformer_weights(
    model: HeliosTransformer, source: Source, *, dtype: torch.dtype, kind: str | None, device, asked: str = "auto"
):
    """Reads every tensor of a model that is on meta, and joins its projections.

    kind: see precision.find_kind. asked: one of WEIGHT_DTYPES; auto leaves layers that are stored plain as they are.
    """
    files = Files(source)
    for block, names in groupby(list(model.state_dict()), _block):
        for layer, own in groupby(names, lambda name: name.rpartition(".")[0]):
            own = list(own)
            _fill_layer(model, layer, own, source, files, dtype, (kind, asked), device)
            tell(sum(source.tensors[name].whole for name in own))
        if block is not None:
            model.blocks[block].attn1.fuse()
    model.ahead = Ahead.of(model.blocks, files.mapped)
    return model.requires_grad_(False).train(False)


def _block(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("blocks.") else None


def _fill_layer(model, layer: str, names: list[str], source: Source, files: Files, dtype, how, device) -> None:
    module, weight = model.get_submodule(layer), f"{layer}.weight"
    kept = weight in names and is_kept(weight, source.tensors[weight], *how)
    for name in names:
        if kept and name == weight:
            continue
        wanted = torch.float32 if is_float32(name) else dtype
        tensor = files.read(source.tensors[name], wanted, device, own=any(part in name for part in JOINED))
        setattr(module, name.rpartition(".")[2], nn.Parameter(tensor, requires_grad=False))
    if kept:
        make = BlockLinear.of if source.tensors[weight].in_gguf else QuantLinear
        made = quant_layer(make, weight, source.tensors[weight], files, how[0], device, module.bias.detach())
        place(model, layer, made)


def quant_layer(make, name: str, stored: Stored, files: Files, kind: str, device, bias: Tensor) -> nn.Module:
    """A quantised layer, such as a QuantLinear: of a weight as it is stored, or of one that is made so on `device`."""
    if stored.in_gguf:
        return make(stored.dtype, files.read(stored.codes, torch.uint8, device), bias)
    if not stored.blocks:
        return make(*quantised_parts(name, stored, files, kind, device), bias)
    found = unpack(stored)
    codes = cut(files.map(stored), stored).contiguous() if found.codes is None else None
    parts = [None if part is None else part.to(device) for part in tensors(codes, found)]
    return make(*parts[:3], bias, found.rotation, parts[3])


def quantised_parts(name: str, stored: Stored, files: Files, kind: str, device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes, scale and zero of a weight in a quantised form: as stored, or made from a stored weight on `device`."""
    if stored.kept is None:
        parts = quantise(name, files.read(stored, STORED[stored.dtype], device, own=True), kind)
        layer = name.removesuffix("weight")
        return parts[name], parts[layer + SCALE], parts.get(layer + ZERO)
    codes, scale, zero = (
        part and files.read(part.codes, STORED[part.dtype], device) for part in (stored, stored.scale, stored.zero)
    )
    check_factors(stored, scale, zero)
    if stored.kept == "fp8_e4m3fn" or scale.ndim < 2:  # other makers store one factor per layer, or none
        scale = torch.ones(1, device=device) if scale is None else scale
        scale = scale.float().reshape(-1, 1).expand(len(codes), 1).contiguous()
    return codes, scale, zero
