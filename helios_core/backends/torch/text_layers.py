"""The text encoder's layers whose weights stay as they are stored, in fewer bits, as transformers calls them.

UMT5-XXL takes 11 GB in bfloat16; its files in eight bits and fewer, and GGUF's, take half of that or less, and so do
these layers: each is widened as it computes, and of the embedding only the rows of a prompt's tokens are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...checkpoint import EMBEDDINGS
from .gguf import BlockLinear
from .quant import QuantLinear, place


class Words(nn.Module):
    """An embedding as it is stored, of which the rows that are used are cast: on the CPU it stays mapped."""

    def __init__(self, words: Tensor, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("words", words)
        self.dtype = dtype

    def rows(self, chosen: Tensor) -> Tensor:
        """Rows [n i], float32, by their numbers [n]."""
        return self.words[chosen].float()


Layer = BlockLinear | QuantLinear | Words
AT_ONCE = 4096  # words compared at a time


class KeptLinear(nn.Module):
    """In the place of an nn.Linear. It shows no `weight`: transformers would ask for its type, and have it widened."""

    weight = None

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """x [... i] of any float type -> [... o] in the layer's."""
        return self.layer(x.to(self.layer.dtype))


class KeptEmbedding(nn.Module):
    """In the place of an nn.Embedding: a layer whose outputs are the words."""

    weight = None

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [b n] -> rows [b n d] in the layer's type."""
        return self.layer.rows(ids.flatten()).to(self.layer.dtype).view(*ids.shape, -1)


def put(model: nn.Module, name: str, weight: Layer | Tensor) -> None:
    """Gives a UMT5 on meta a weight of that name: a tensor, or a layer that stays in fewer bits."""
    module, _, last = name.rpartition(".")
    if isinstance(weight, Tensor):
        setattr(model.get_submodule(module), last, nn.Parameter(weight, requires_grad=False))
    else:
        place(model, module, (KeptEmbedding if name in EMBEDDINGS else KeptLinear)(weight))


def alike(one: Layer | Tensor, other: Layer | Tensor, words: Tensor) -> bool:
    """Whether two embeddings are the same numbers, of all words [n] by their numbers; some at a time."""

    def rows(weight: Layer | Tensor, ids: Tensor) -> Tensor:
        return weight[ids].float() if isinstance(weight, Tensor) else weight.rows(ids)

    return all(torch.equal(rows(one, ids), rows(other, ids)) for ids in words.split(AT_ONCE))
