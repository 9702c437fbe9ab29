"""Trainable low-rank pairs beside the layers of a loaded transformer, which stays as it is and gets no gradients.

The base may be in any form that the pack computes with: joined projections, quantised, in host memory. A base layer
that is quantised or elsewhere saves nothing for the way back: its weight is widened and fetched again there, so that
only one layer's weight is whole at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backends.torch.quant import QuantLinear
from ...lora import locate

GROUPS = {"self": ".attn1.to_", "cross": ".attn2.to_", "feed": ".ffn.net.", "text": "condition_embedder.text_embedder."}
PREFIX = "transformer"  # of the keys, as diffusers and PEFT have them


class FrozenProduct(torch.autograd.Function):
    """x W^T + b of a layer without gradients of its own. W is asked for anew on the way back."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: nn.Module) -> Tensor:
        """x [... i] -> [... o], where x is."""
        ctx.layer = layer
        return F.linear(x, fetched(layer.weight, x), fetched(layer.bias, x))

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Of x alone."""
        return grad @ fetched(ctx.layer.weight, grad), None


def fetched(weight: Tensor, like: Tensor) -> Tensor:
    """A weight where the activations are, in their type."""
    return weight.to(like.device, like.dtype, non_blocking=True)


class LowRankPair(nn.Module):
    """lora_A.weight [r i] and lora_B.weight [o r], float32; B begins at zero. scale: alpha / rank."""

    def __init__(self, columns: int, rows: int, rank: int, alpha: float, device, rng: torch.Generator):
        super().__init__()
        self.scale = alpha / rank
        self.lora_A = nn.Module()
        self.lora_B = nn.Module()
        bound = 1 / math.sqrt(columns)  # that of kaiming_uniform with a = sqrt(5), as PEFT begins
        start = (2 * torch.rand(rank, columns, generator=rng) - 1) * bound
        self.lora_A.weight = nn.Parameter(start.to(device))
        self.lora_B.weight = nn.Parameter(torch.zeros(rows, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """x [... i] -> [... o], in x's type."""
        down, up = self.lora_A.weight.to(x.dtype), self.lora_B.weight.to(x.dtype)
        return F.linear(F.linear(x, down), up) * self.scale


class RowPair(NamedTuple):
    """A pair that adds to rows of a layer's output: the first of them, how many."""

    row: int
    rows: int
    pair: LowRankPair


class TrainedLinear(nn.Module):
    """A linear layer of any kind with trainable pairs on rows of its output. frozen: as `FrozenProduct`.

    The pairs are no parameters of the layer's: they neither move nor stream with the model. So it does not see them
    change, and whoever samples in between calls its `forget` (transformer.py).
    """

    def __init__(self, base: nn.Module, pieces: Iterable[RowPair], *, frozen: bool):
        super().__init__()
        self.base, self.pieces, self.frozen = base, sorted(pieces, key=lambda piece: piece.row), frozen
        self.on = True

    @property
    def dtype(self) -> torch.dtype:
        """What it takes its input as."""
        return getattr(self.base, "dtype", None) or self.base.weight.dtype

    @property
    def weight(self) -> Tensor:
        """The base's."""
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        """The base's."""
        return self.base.bias

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o], as `Linear`."""
        y = FrozenProduct.apply(x, self.base) if self.frozen else self.base(x)
        if self.pieces and self.on:
            y = y + self.added(x, y.shape[-1])
        return F.gelu(y, approximate="tanh") if gelu else y

    def added(self, x: Tensor, rows: int) -> Tensor:
        """What the pairs add [... o], zeros where there is none."""
        parts, at = [], 0
        for piece in self.pieces:
            if piece.row > at:
                parts.append(x.new_zeros(*x.shape[:-1], piece.row - at))
            parts.append(piece.pair(x))
            at = piece.row + piece.rows
        if at < rows:
            parts.append(x.new_zeros(*x.shape[:-1], rows - at))
        return torch.cat([part.to(parts[0].dtype) for part in parts], -1) if len(parts) > 1 else parts[0]


class Adapters(nn.Module):
    """The pairs alone, in a tree whose state has the keys of the file: transformer.LAYER.lora_A.weight and lora_B.

    It is what is trained, averaged and saved; the transformer's layers call the same pairs.
    """

    def __init__(self, pairs: dict[str, LowRankPair]):
        super().__init__()
        self.layers = tuple(pairs)
        for layer, pair in pairs.items():
            node = self
            *parents, last = f"{PREFIX}.{layer}".split(".")
            for name in parents:
                if name not in node._modules:
                    node.add_module(name, nn.Module())
                node = node._modules[name]
            node.add_module(last, pair)

    def pair(self, layer: str) -> LowRankPair:
        """Of a layer by its published name."""
        return self.get_submodule(f"{PREFIX}.{layer}")

    def tensors(self) -> dict[str, Tensor]:
        """As a file holds them: B times alpha / rank, so that every reader, of whatever rule for alpha, agrees."""
        return {key: value * (self._scale(key) if ".lora_B." in key else 1) for key, value in self.state_dict().items()}

    def _scale(self, key: str) -> float:
        return self.pair(key.removeprefix(f"{PREFIX}.").rpartition(".lora_")[0]).scale

    def forward(self) -> None:
        """Nothing: the transformer computes with the pairs."""


def find_layers(shapes: dict[str, tuple[int, ...]], targets: str, blocks: frozenset[int] | None = None) -> list[str]:
    """Published names of the linear layers that targets names, in the model's order.

    targets: of GROUPS, or parts of layers' names such as to_q, with commas. blocks: only these. ValueError for what
    names no layer.
    """
    linear = [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2 and "weight" in name]
    linear = [name for name in linear if any(part in name for part in GROUPS.values())]
    wanted = [part for part in targets.replace(" ", "").split(",") if part]
    found = {part: [name for name in linear if GROUPS.get(part, f"{part}.") in f"{name}."] for part in wanted}
    if lost := [part for part, names in found.items() if not names] or ([] if wanted else [targets]):
        raise ValueError(
            f"--targets {targets}: {', '.join(map(repr, lost))} names no layer; wanted {', '.join(GROUPS)}, or parts "
            "of names such as to_q or ffn.net.2"
        )
    chosen = {name for names in found.values() for name in names if blocks is None or _block(name) in {None, *blocks}}
    return [name for name in linear if name in chosen]


def _block(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None


def attach(model: nn.Module, layers: list[str], shapes: dict, *, rank: int, alpha: float, seed: int = 0) -> Adapters:
    """Puts pairs on layers of a loaded transformer, in place, by their published names.

    All its quantised layers, and those in host memory whose activations are elsewhere, save nothing for the way back.
    """
    rng, pairs, pieces = torch.Generator().manual_seed(seed), {}, {}
    modules = dict(model.named_modules())
    for layer in layers:
        rows, columns = shapes[f"{layer}.weight"]
        place = locate(f"{layer}.weight", model.config.dim, modules.__contains__)
        pairs[layer] = LowRankPair(columns, rows, min(rank, rows, columns), alpha, model.device, rng)
        pieces.setdefault(place.path, []).append(RowPair(place.row, rows, pairs[layer]))
    for path, module in modules.items():
        if not isinstance(module, (nn.Linear, QuantLinear)):
            continue
        streamed = model.streamer is not None and path.startswith("blocks.")  # into memory that others take over
        frozen = isinstance(module, QuantLinear) or streamed or is_away(module, model.device)
        if frozen or path in pieces:
            parent, _, last = path.rpartition(".")
            wrapped = TrainedLinear(module, pieces.get(path, ()), frozen=frozen)
            model.get_submodule(parent)._modules[last] = wrapped
    model.forget()
    return Adapters(pairs)


def is_away(layer: nn.Module, device: torch.device) -> bool:
    """Whether a layer's matrix is not where the model computes."""
    weight = next((t for t in (*layer.parameters(), *layer.buffers()) if t.ndim == 2), None)
    return weight is not None and weight.device.type != device.type


def detach(model: nn.Module) -> None:
    """Takes the pairs off again."""
    for path, module in list(model.named_modules()):
        if isinstance(module, TrainedLinear):
            parent, _, last = path.rpartition(".")
            model.get_submodule(parent)._modules[last] = module.base
    model.forget()


@contextmanager
def without(model: nn.Module) -> Iterator[None]:
    """Inside, the model is the base: the pairs add nothing."""
    layers = [module for module in model.modules() if isinstance(module, TrainedLinear)]
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True
