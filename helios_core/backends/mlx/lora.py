"""LoRAs on a loaded transformer. The base is never changed: what comes out shares all the arrays it does not change.

The twin of ../torch/lora.py: applied, a layer is wrapped, base(x) + (x down^T) up^T; merged, it gets a weight of its
own, computed in float32 and rounded once. Small parameters always get values of their own.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...lora import Changes, arrange, gain_mode, locate, refuse_quantised, stacked
from .arrays import evaluate, to_array
from .files import channels_last
from .load import array
from .transformer import HeliosTransformer, PatchEmbed
from .weights import place, submodule


class LoraLinear(nn.Module):
    """A linear layer of any kind with low-rank additions to rows of its output.

    parts: (first row, down [r i], up [o r]), scales included; several may add to the same rows.
    """

    def __init__(self, base: nn.Module, parts: list[tuple[int, mx.array, mx.array]]):
        super().__init__()
        self.base = base
        self.down = mx.concatenate([down for _, down, _ in parts])
        self.ups = [up for _, _, up in parts]
        # Past MLX's attributes, which take every list for parameters.
        object.__setattr__(self, "rows", [slice(row, row + len(up)) for row, _, up in parts])

    @property
    def dtype(self) -> mx.Dtype:
        """What the additions are computed in."""
        return self.down.dtype

    @property
    def weight(self) -> mx.array:
        """The base's, without the additions."""
        return self.base.weight

    @property
    def bias(self) -> mx.array:
        """The base's."""
        return self.base.bias

    def __call__(self, x: mx.array) -> mx.array:
        """x [... i] -> [... o], as `Linear`."""
        y = self.base(x)
        ends = np.cumsum([up.shape[1] for up in self.ups[:-1]]).tolist()
        low = mx.split(x @ self.down.T, ends, axis=-1)
        for rows, h, up in zip(self.rows, low, self.ups, strict=True):
            y = y.at[..., rows].add((h @ up.T).astype(y.dtype))
        return y


def adapt(model: HeliosTransformer, changes: Changes, *, merge: bool, shared: bool = True) -> HeliosTransformer:
    """The model with the changes. shared: as a copy that shares the unchanged arrays; else the model itself."""
    compiled, model = model.compiled is not None, share(model) if shared else model
    edits, beside = arrange(
        changes,
        lambda name: locate(name, model.config.dim, lambda path: has(model, path)),
        lambda path: merge or isinstance(submodule(model, path), PatchEmbed),
    )
    for (path, leaf), parts in edits.items():
        _edit(submodule(model, path), path, leaf, parts)
    for path, parts in beside.items():
        _wrap(model, path, parts)
    _amplify(model, changes.gains)
    return model.jit() if compiled else model


def share(value):
    """A copy of a module and all below it that holds the very same arrays; what is compiled stays with the original."""
    if isinstance(value, list):
        return [share(item) for item in value]
    if not isinstance(value, nn.Module):
        return value
    twin = copy.copy(value)
    for name, item in value.items():
        twin[name] = share(item)
    if isinstance(twin, HeliosTransformer):
        twin.compiled = None
    return twin


def has(model: nn.Module, path: str) -> bool:
    """Whether there is something of that dotted name."""
    parent, _, last = path.rpartition(".")
    return last in submodule(model, parent)


def _edit(module: nn.Module, path: str, leaf: str, parts: list) -> None:
    """Gives a parameter a new value, computed in float32 and rounded once."""
    if leaf not in module:
        refuse_quantised(path, leaf)
    old = module[leaf]
    new = old.astype(mx.float32)
    new = mx.moveaxis(new, -1, 1) if new.ndim > 3 else new
    for row, count, functions in parts:
        before, rows, after = mx.split(new, [row, row + count if count else len(new)])
        for function in functions:
            rows = function(rows, array)
        new = mx.concatenate([before, rows, after])
    module[leaf] = channels_last(new).astype(old.dtype)
    evaluate(module[leaf])


def _wrap(model: HeliosTransformer, path: str, parts: list) -> None:
    base = submodule(model, path)
    dtype = getattr(base, "dtype", None) or base.weight.dtype
    joined = [(row, *(to_array(x).astype(dtype) for x in stacked(pairs))) for row, pairs in parts]
    layer = LoraLinear(base, joined)
    evaluate(layer.down, layer.ups)
    place(model, path, layer)


def _amplify(model: HeliosTransformer, gains: dict) -> None:
    """Sets the gains of the history's keys, which switches them on where the model had none."""
    for name, gain in gains.items():
        path, _, leaf = name.rpartition(".")
        submodule(model, path)[leaf] = to_array(gain)
        mode = gain_mode(gain)
        model.config = replace(model.config, is_amplify_history=True, history_scale_mode=mode)
