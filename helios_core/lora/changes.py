"""What LoRA files do to a model's parameters, their numbers read. A backend does it, on its own arrays.

What becomes low-rank pairs can be computed beside a layer; the rest are edits of whole parameters (edits.py).
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoint import headers, numbers
from ..config import TransformerConfig
from ..devices import INSTALL, installed
from .edits import Edit
from .files import COMPANION, Adapter, LoraFile, companion_names
from .forms import low_rank, whole
from .strength import Strength

BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
JOINED = ("to_q", "to_k", "to_v")  # the order of their rows in to_qkv


@dataclass
class Changes:
    """What is to be done to a model: edits of whole parameters, and low-rank pairs per layer.

    edits: parameter -> edits in their order. pairs: layer -> (down [r ...], up [o r ...] times all scales). gains: of
    the history's keys, by parameter.
    """

    edits: dict[str, list[Edit]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=lambda: defaultdict(list))
    gains: dict[str, np.ndarray] = field(default_factory=dict)


def read_changes(
    loras: list[tuple[LoraFile, Strength]], companion: Path | None, config: TransformerConfig, shapes
) -> Changes:
    """Reads the files. shapes: the model's parameters' by name. ValueError for NaN or infinity in them."""
    changes = Changes()
    for name, new in read_companion(companion, config, shapes).items() if companion else ():
        if "history_key_scale" in name:
            changes.gains[name] = new
        else:
            changes.edits[name].append(Edit("blend", (new, 1.0)))
    for file, strength in loras:
        if strength.value:
            _collect(changes, file, strength, partial(_tensor, file.path, headers.read_header(file.path)))
    return changes


def _collect(changes: Changes, file: LoraFile, strength: Strength, tensor: Callable[[str], np.ndarray]) -> None:
    for layer, adapter in file.adapters.items():
        if here := strength.of(layer):
            _adapt(changes, layer, adapter, _scale(file, adapter, tensor), here, tensor)
    for name, key in file.replaced.items():
        if here := strength.of(name):
            changes.edits[name].append(Edit("blend", (tensor(key), here)))
    for name, key in file.added.items():
        if here := strength.of(name):
            changes.edits[name].append(Edit("add", (tensor(key) * np.float32(here),)))


def _adapt(changes: Changes, layer: str, adapter: Adapter, scale: float, strength: float, tensor: Callable) -> None:
    """A layer's change: a pair where that is the smaller way, and no length goes with it; else an edit."""
    held = {role: tensor(key) for role, key in adapter.keys.items()}
    if adapter.bias is not None:
        changes.edits[f"{layer}.bias"].append(Edit("add", (tensor(adapter.bias) * np.float32(scale * strength),)))
    if adapter.lengths is not None:
        lengths = tensor(adapter.lengths)
        column = adapter.rows or lengths.ndim < 2 or lengths.shape[0] > 1
        lengths, edit = lengths.reshape((-1, 1) if column else (1, -1)), whole(adapter.kind, held, scale)
        changes.edits[f"{layer}.weight"].append(Edit("decompose", (lengths, strength, edit.kind, *edit.values)))
    elif (pair := low_rank(adapter.kind, held)) is not None:
        changes.pairs[layer].append((pair[0], pair[1] * np.float32(scale * strength)))
    else:
        changes.edits[f"{layer}.weight"].append(whole(adapter.kind, held, scale * strength))


def _scale(file: LoraFile, adapter: Adapter, tensor: Callable[[str], np.ndarray]) -> float:
    if adapter.alpha is None:
        return adapter.scale(None)
    alpha = tensor(adapter.alpha)
    if alpha.size != 1:
        raise ValueError(f"{file.path.name}: {adapter.alpha} holds {alpha.size} numbers; alpha is one")
    return adapter.scale(alpha.item())


def _tensor(path: Path, header: dict[str, headers.TensorInfo], key: str) -> np.ndarray:
    """In float32."""
    _, dtype, shape, start = header[key]
    codes = numbers.mapped(path, dtype, shape, start, headers.nbytes(dtype, shape))
    return _checked(path, key, numbers.as_float32(codes, dtype))


def _checked(path: Path, key: str, value: np.ndarray) -> np.ndarray:
    if not np.isfinite(value).all():
        raise ValueError(f"{path.name}: {key} holds NaN or infinity; the training diverged or the file is broken")
    return value


def read_companion(path: Path, config: TransformerConfig, shapes) -> dict[str, np.ndarray]:
    """The official companion file: published parameter -> float32 values. Its pickle may hold tensors, nothing else.

    Torch reads it, whatever computes; ValueError where it is not installed.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; wanted the {COMPANION} of a LoRA")
    if not installed("torch"):
        raise ValueError(f"{path} is a torch pickle, which only torch reads; {INSTALL['torch']}, or leave it out")
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except BROKEN as error:
        raise ValueError(f"{path} is no {COMPANION}, or is cut short ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"{path} is no {COMPANION}: it should hold names and tensors only")
    sizes = {key: tuple(value.shape) for key, value in found.items()}
    names = companion_names(path, sizes, shapes, config.num_attention_heads, config.num_layers)
    return {name: _checked(path, key, found[key].detach().float().numpy()) for name, key in names.items()}


class Place(NamedTuple):
    """Where a published parameter is: the module's path, the name in it, first row and rows; rows 0 is all of them."""

    path: str
    leaf: str
    row: int
    rows: int


def locate(name: str, dim: int, has: Callable[[str], bool]) -> Place:
    """The place of a published parameter, which may be rows of a joined layer. has: whether a path is in the model."""
    path, _, leaf = name.rpartition(".")
    parent, _, last = path.rpartition(".")
    if last in JOINED and parent.endswith("attn1") and has(f"{parent}.to_qkv"):
        return Place(f"{parent}.to_qkv", leaf, JOINED.index(last) * dim, dim)
    return Place(path, leaf, 0, 0)


def arrange(changes: Changes, place: Callable[[str], Place], merged: Callable[[str], bool]) -> tuple[dict, dict]:
    """(edits, beside), for the model's own parameters. place: of a published one.

    edits: (path, leaf) -> [(first row, rows, functions)]. beside: path -> [(first row, pairs)] to compute beside the
    module there. merged: whether the pairs of a module become edits.
    """
    edits, beside = defaultdict(list), defaultdict(list)
    for name, functions in changes.edits.items():
        path, leaf, row, rows = place(name)
        edits[path, leaf].append((row, rows, functions))
    for layer, pairs in changes.pairs.items():
        path, leaf, row, rows = place(f"{layer}.weight")
        if merged(path):
            edits[path, leaf].append((row, rows, [Edit("product", pair) for pair in pairs]))
        else:
            beside[path].append((row, pairs))
    return edits, beside


def stacked(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one layer as one: down [r i], up [o r]."""
    down, up = zip(*((down.reshape(len(down), -1), up.reshape(len(up), -1)) for down, up in pairs))
    return np.concatenate(down), np.concatenate(up, axis=1)


def refuse_quantised(path: str, leaf: str):
    """Always ValueError: a quantised weight cannot be rewritten."""
    raise ValueError(
        f"{path}.{leaf} is quantised and cannot be rewritten. Apply the LoRA instead of merging it; where its "
        "file holds whole differences (.diff), DoRA or a large LoKr, load the checkpoint with weight_dtype bf16"
    )


def gain_mode(gain: np.ndarray) -> str:
    """The config's history_scale_mode for a gain of the history's keys."""
    return "per_head" if gain.size > 1 else "scalar"
