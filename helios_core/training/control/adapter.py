"""What is trained: an embedding of control latents and a small LoRA, both nothing at first, on a frozen model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...config import TransformerConfig
from ...control import EMBEDDING, adapter_facts, tokens
from ..files import save
from ..lora import Adapters

TARGETS = "self,feed,attn2.to_q,attn2.to_out"  # not a prompt's keys and values, which controls share


class TrainedAdapter(nn.Module):
    """weight [d c pt ph pw] and bias [d]: the embedding; pairs: the LoRA on the transformer's layers, if there is one.

    The control latents' own numbers are float32 whatever the model computes in.
    """

    def __init__(self, config: TransformerConfig, pairs: Adapters | None = None):
        super().__init__()
        self.config, self.pairs = config, pairs
        self.weight = nn.Parameter(torch.zeros(config.dim, config.in_channels, *config.patch_size))
        self.bias = nn.Parameter(torch.zeros(config.dim))

    def tokens(self, z: Tensor, keep: Tensor) -> Tensor:
        """Of control latents [b c t h w]; keep [b]: 0 where a sample goes without."""
        return tokens(z, self.weight, self.bias) * keep.view(-1, 1, 1)

    def save(self, file: Path, policy: str, extractor: str) -> Path:
        """The file that `control.read_adapter` reads, in bfloat16."""
        held = {f"{EMBEDDING}.weight": self.weight, f"{EMBEDDING}.bias": self.bias}
        held |= {} if self.pairs is None else self.pairs.tensors()
        held = {name: value.to(torch.bfloat16) for name, value in held.items()}
        return save(held, file, adapter_facts(self.config, policy, extractor))
