"""Weights into MLX modules: read, cast, repacked or quantised one tensor at a time, in the order of the files."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ...checkpoint import KINDS, Source, check_network, is_float32, is_quantised, tell
from .arrays import evaluate
from .files import channels_last, published_shape, widen
from .quant import can_keep, find_kind, make_layer, read_layer


def published_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of the network, in the files' layout."""
    return {name: published_shape(p.shape) for name, p in tree_flatten(model.parameters())}


def submodule(model: nn.Module, name: str):
    """The module of that dotted name."""
    for part in name.split(".") if name else ():
        model = model[int(part)] if part.isdigit() else model[part]
    return model


def place(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer where the model has one of that dotted name."""
    parent, _, last = name.rpartition(".")
    submodule(model, parent)[int(last) if last.isdigit() else last] = layer


def load_weights(model: nn.Module, source: Source, cast, names=None) -> nn.Module:
    """Reads tensors (None: all) of a model nobody has evaluated yet. cast: name -> dtype.

    ValueError where the file's names and shapes are not the network's.
    """
    wanted = published_shapes(model)
    check_network(source, wanted)
    state = []
    for name in sorted(wanted if names is None else names, key=lambda n: source.tensors[n][:2]):
        tensor = channels_last(widen(source.tensors[name])).astype(cast(name))
        evaluate(tensor)
        state.append((name, tensor))
        tell(source.tensors[name].whole)
    model.load_weights(state, strict=names is None)
    return model.train(False)


def quantise_model(model: nn.Module, kind: str) -> nn.Module:
    """Quantises the linear layers of attention and feed-forward of a loaded transformer, in place."""
    for name, weight in tree_flatten(model.parameters()):
        if is_quantised(name):
            path = name.removesuffix(".weight")
            place(model, path, make_layer(name, weight, kind, submodule(model, path).bias))
    return model


def load_transformer_weights(model: nn.Module, source: Source, *, dtype: mx.Dtype, weight_dtype: str) -> nn.Module:
    """The same for a transformer, whose linear layers stay as quantised as they are stored, or become so.

    Widened instead are fp8 and ComfyUI's other forms, which MLX has no layers for, and groups that it has none for.
    """
    asked = weight_dtype if weight_dtype in KINDS else None
    kept = find_kind(source, weight_dtype) is not None
    layers = {
        name
        for name, stored in source.tensors.items()
        if is_quantised(name) and (asked is not None and not stored.blocks or kept and can_keep(stored))
    }
    plain = [name for name in published_shapes(model) if name not in layers]
    load_weights(model, source, lambda name: mx.float32 if is_float32(name) else dtype, plain)
    for name in sorted(layers, key=lambda n: source.tensors[n][:2]):
        stored, path = source.tensors[name], name.removesuffix(".weight")
        bias = submodule(model, path).bias
        layer = read_layer(stored, bias) if can_keep(stored) else make_layer(name, widen(stored), asked, bias)
        evaluate(layer.parameters())
        place(model, path, layer)
        tell(stored.whole)
    return model.train(False)
