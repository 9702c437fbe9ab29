"""LoRAs on a loaded transformer. The base is never changed: what comes out shares all the tensors it does not change.

Applied: a layer is wrapped, base(x) + (x down^T) up^T, whatever the base computes with; this costs two thin products
per layer. Merged: the layer gets a weight of its own, W + up @ down, computed in float32 and rounded once. Small
parameters (biases, norms, tables, patch embeddings) always get copies of their own.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from ...config import TransformerConfig
from ...lora import COMPANION, LoraFile, Pair, companion_names
from .load import shapes as shapes
from .transformer import HeliosTransformer

BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError)
JOINED = ("to_q", "to_k", "to_v")  # the order of their rows in to_qkv


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
        return self.down.dtype

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        y = self.base(x)
        out = y.view(-1, y.shape[-1])
        low = F.linear(x, self.down).flatten(0, -2).split([up.shape[1] for up in self.ups], dim=-1)
        for rows, h, up in zip(self.rows, low, self.ups, strict=True):
            out[:, rows].addmm_(h, up.T)
        return F.gelu(y, approximate="tanh") if gelu else y


@dataclass
class Changes:
    """What is to be done to a model: edits of whole parameters, and low-rank pairs per layer.

    edits: parameter -> functions on its float32 values. pairs: layer -> (down [r ...], up [o r ...] times all scales).
    """

    edits: dict[str, list[Callable[[Tensor], Tensor]]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=lambda: defaultdict(list))
    gains: dict[str, Tensor] = field(default_factory=dict)


def read(loras: list[tuple[LoraFile, float]], companion: Path | None, config: TransformerConfig) -> Changes:
    """Reads the files. ValueError for NaN or infinity in them."""
    changes = Changes()
    for name, new in read_companion(companion, config).items() if companion else ():
        if "history_key_scale" in name:
            changes.gains[name] = new
        else:
            changes.edits[name].append(partial(_blend, new, 1.0))
    for file, strength in loras:
        if strength:
            with safe_open(file.path, framework="pt") as tensors:
                _collect(changes, file, strength, partial(_tensor, file.path, tensors.get_tensor))
    return changes


def _collect(changes: Changes, file: LoraFile, strength: float, tensor: Callable[[str], Tensor]) -> None:
    for layer, pair in file.pairs.items():
        scale = strength * _scale(file, pair, tensor)
        changes.pairs[layer].append((tensor(pair.down), tensor(pair.up) * scale))
        if pair.bias is not None:
            changes.edits[f"{layer}.bias"].append(partial(_add, tensor(pair.bias) * scale))
    for name, key in file.replaced.items():
        changes.edits[name].append(partial(_blend, tensor(key), strength))
    for name, key in file.added.items():
        changes.edits[name].append(partial(_add, tensor(key) * strength))


def _scale(file: LoraFile, pair: Pair, tensor: Callable[[str], Tensor]) -> float:
    if pair.alpha is None:
        return pair.scale(None)
    alpha = tensor(pair.alpha)
    if alpha.numel() != 1:
        raise ValueError(f"{file.path.name}: {pair.alpha} holds {alpha.numel()} numbers; alpha is one")
    return pair.scale(alpha.item())


def _tensor(path: Path, get: Callable[[str], Tensor], key: str) -> Tensor:
    """In float32."""
    value = get(key).float()
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{path.name}: {key} holds NaN or infinity; the training diverged or the file is broken")
    return value


def _add(delta: Tensor, value: Tensor) -> Tensor:
    return value + delta.to(value.device)


def _blend(new: Tensor, strength: float, value: Tensor) -> Tensor:
    new = new.to(value.device)
    return new if strength == 1 else torch.lerp(value, new, strength)


def _product(down: Tensor, up: Tensor, value: Tensor) -> Tensor:
    """value + up @ down, for a matrix or the kernel of a convolution."""
    down, up = (x.flatten(1).to(value.device) for x in (down, up))
    return torch.addmm(value.flatten(1), up, down).view(value.shape)


def read_companion(path: Path, config: TransformerConfig) -> dict[str, Tensor]:
    """The official companion file: published parameter -> float32 values. Its pickle may hold tensors, nothing else."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; wanted the {COMPANION} of a LoRA")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (*BROKEN, RuntimeError) as error:
        raise ValueError(f"{path} is no {COMPANION}, or is cut short ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} is no {COMPANION}: it should hold names and tensors only")
    sizes = {key: tuple(value.shape) for key, value in found.items()}
    names = companion_names(path, sizes, shapes(config), config.num_attention_heads, config.num_layers)
    return {name: _tensor(path, found.__getitem__, key) for name, key in names.items()}


def adapt(model: HeliosTransformer, changes: Changes, *, merge: bool, shared: bool = True) -> HeliosTransformer:
    """The model with the changes. shared: as a copy that shares the unchanged tensors; else the model itself."""
    model = share(model) if shared else model
    edits = defaultdict(list)
    for name, functions in changes.edits.items():
        edits[locate(model, name)] += functions
    wraps = defaultdict(list)
    for layer, pairs in changes.pairs.items():
        path, leaf, row, size = locate(model, f"{layer}.weight")
        if merge or isinstance(model.get_submodule(path), nn.Conv3d):
            edits[path, leaf, row, size] += [partial(_product, *pair) for pair in pairs]
        else:
            wraps[path].append((row, pairs))
    _edit(model, edits)
    for path, parts in wraps.items():
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


def locate(model: HeliosTransformer, name: str) -> tuple[str, str, int, int]:
    """(module, parameter, first row, rows) of a published parameter; rows 0 is all of them. Knows the joined layers."""
    path, _, leaf = name.rpartition(".")
    parent, _, last = path.rpartition(".")
    if last in JOINED and parent.endswith("attn1") and hasattr(model.get_submodule(parent), "to_qkv"):
        dim = model.config.dim
        return f"{parent}.to_qkv", leaf, JOINED.index(last) * dim, dim
    return path, leaf, 0, 0


def _is_parameter(model: nn.Module, path: str, leaf: str) -> bool:
    return leaf in model.get_submodule(path)._parameters


def _edit(model: HeliosTransformer, edits: dict) -> None:
    """Gives the edited parameters new values, each computed in float32 and rounded once."""
    whole = defaultdict(list)
    for (path, leaf, row, size), functions in edits.items():
        whole[path, leaf].append((row, size, functions))
    for (path, leaf), parts in whole.items():
        if not _is_parameter(model, path, leaf):
            raise ValueError(
                f"{path}.{leaf} is quantised and cannot be rewritten. Apply the LoRA instead of merging it; where its "
                "file holds whole differences (.diff), load the checkpoint with weight_dtype bf16"
            )
        module = model.get_submodule(path)
        old = getattr(module, leaf)
        new = old.detach().to(torch.float32, copy=True)
        for row, size, functions in parts:
            rows = slice(row, row + size) if size else slice(None)
            for function in functions:
                new[rows] = function(new[rows])
        setattr(module, leaf, nn.Parameter(new.to(old.dtype), requires_grad=False))


def _wrap(model: HeliosTransformer, path: str, parts: list) -> None:
    base = model.get_submodule(path)
    dtype = getattr(base, "dtype", None) or base.weight.dtype
    # Beside the base's matrix, which a streamed model keeps in host memory, and streamed with it.
    home = next(t.device for t in (*base.parameters(), *base.buffers()) if t.ndim == 2)
    place = {"device": home, "dtype": dtype}
    joined = []
    for row, pairs in parts:
        down, up = zip(*((down.flatten(1), up.flatten(1)) for down, up in pairs))
        joined.append((row, torch.cat(down).to(**place), torch.cat(up, dim=1).to(**place)))
    parent, _, last = path.rpartition(".")
    model.get_submodule(parent)._modules[last] = LoraLinear(base, joined)


def _amplify(model: HeliosTransformer, gains: dict[str, Tensor]) -> None:
    """Sets the gains of the history's keys, which switches them on where the model had none."""
    for name, gain in gains.items():
        path, _, leaf = name.rpartition(".")
        gain = gain.to(model.device, torch.float32)
        setattr(model.get_submodule(path), leaf, nn.Parameter(gain, requires_grad=False))
        mode = "per_head" if math.prod(gain.shape) > 1 else "scalar"
        model.config = replace(model.config, is_amplify_history=True, history_scale_mode=mode)
