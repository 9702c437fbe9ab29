"""LoRAs on a loaded transformer. The base is never changed: what comes out shares all the tensors it does not change.

Applied: a layer is wrapped, base(x) + (x down^T) up^T, whatever the base computes with; this costs two thin products
per layer. Merged: the layer gets a weight of its own, W + up @ down, computed in float32 and rounded once. Small
parameters (biases, norms, tables, patch embeddings) always get copies of their own.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...lora import Changes, arrange, gain_mode, locate, refuse_quantised, stacked
from .load import array
from .transformer import HeliosTransformer


class LoraLinear(nn.Module):
    """A linear layer of any kind with low-rank additions to rows of its output.

    parts: (first row, down [r i], up [o r]), scales included; several may add to the same rows.
    """

    def __init__(self, base: nn.Module, parts: list[tuple[int, Tensor, Tensor]]):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.cat([down for _, down, _ in parts]), requires_grad=False)
        self.ups = nn.ParameterList(nn.Parameter(up, requires_grad=False) for _, _, up in parts)
        self.rows = [slice(row, row + len(up)) for row, _, up in parts]

    @property
    def dtype(self) -> torch.dtype:
        """What the additions are computed in."""
        return self.down.dtype

    @property
    def weight(self) -> Tensor:
        """The base's, without the additions."""
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        """The base's."""
        return self.base.bias

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o], as `Linear`."""
        y = self.base(x)
        out = y.view(-1, y.shape[-1])
        low = F.linear(x, self.down).flatten(0, -2).split([up.shape[1] for up in self.ups], dim=-1)
        for rows, h, up in zip(self.rows, low, self.ups, strict=True):
            out[:, rows].addmm_(h, up.T)
        return F.gelu(y, approximate="tanh") if gelu else y


def adapt(model: HeliosTransformer, changes: Changes, *, merge: bool, shared: bool = True) -> HeliosTransformer:
    """The model with the changes. shared: as a copy that shares the unchanged tensors; else the model itself."""
    model = share(model) if shared else model
    modules = dict(model.named_modules())
    edits, beside = arrange(
        changes,
        lambda name: locate(name, model.config.dim, modules.__contains__),
        lambda path: merge or isinstance(modules[path], nn.Conv3d),
    )
    for (path, leaf), parts in edits.items():
        _edit(modules[path], path, leaf, parts)
    for path, parts in beside.items():
        _wrap(model, path, parts)
    _amplify(model, changes.gains)
    return model


def share(module: nn.Module) -> nn.Module:
    """A copy of a module and all below it that holds the very same tensors."""
    twin = copy.copy(module)
    for name in ("_parameters", "_buffers"):
        twin.__dict__[name] = dict(module.__dict__[name])
    twin.__dict__["_modules"] = {name: child and share(child) for name, child in module._modules.items()}
    return twin


def _edit(module: nn.Module, path: str, leaf: str, parts: list) -> None:
    """Gives a parameter a new value, computed in float32 and rounded once."""
    if leaf not in module._parameters:
        refuse_quantised(path, leaf)
    old = getattr(module, leaf)
    new = old.detach().to(torch.float32, copy=True)
    for row, count, functions in parts:
        rows = slice(row, row + count) if count else slice(None)
        for function in functions:
            new[rows] = function(new[rows], array)
    setattr(module, leaf, nn.Parameter(new.to(old.dtype), requires_grad=False))


def _wrap(model: HeliosTransformer, path: str, parts: list) -> None:
    base = model.get_submodule(path)
    dtype = getattr(base, "dtype", None) or base.weight.dtype
    # Beside the base's matrix, which a streamed model keeps in host memory, and streamed with it.
    home = next(t.device for t in (*base.parameters(), *base.buffers()) if t.ndim == 2)
    joined = []
    for row, pairs in parts:
        down, up = (torch.from_numpy(x).to(device=home, dtype=dtype) for x in stacked(pairs))
        joined.append((row, down, up))
    parent, _, last = path.rpartition(".")
    model.get_submodule(parent)._modules[last] = LoraLinear(base, joined)


def _amplify(model: HeliosTransformer, gains: dict) -> None:
    """Sets the gains of the history's keys, which switches them on where the model had none."""
    for name, gain in gains.items():
        path, _, leaf = name.rpartition(".")
        values = torch.from_numpy(gain).to(model.device, torch.float32)
        setattr(model.get_submodule(path), leaf, nn.Parameter(values, requires_grad=False))
        mode = gain_mode(gain)
        model.config = replace(model.config, is_amplify_history=True, history_scale_mode=mode)
