"""What is trained: an embedding of control latents and a small LoRA, both zero at first, on a frozen model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backends.torch.load import build_and_load
from ...backends.torch.transformer import HeliosTransformer
from ...config import TransformerConfig
from ...control import EMBEDDING, adapter_facts, tokens
from ..files import save

TARGETS = r"blocks\.\d+\.(attn1\.to_[qkv]|attn1\.to_out\.0|attn2\.to_q|attn2\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)"


class LowRankLayer(nn.Module):
    """A frozen layer with up @ down added to its weight [o i]; the pair is float32."""

    def __init__(self, base: nn.Module, rank: int):
        super().__init__()
        rows, columns = base.weight.shape
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    @property
    def dtype(self) -> torch.dtype:
        """What it takes its input as."""
        return self.base.dtype

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o], as `Linear`."""
        y = self.base(x) + F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))
        return F.gelu(y, approximate="tanh") if gelu else y


class TrainedAdapter(nn.Module):
    """embedding: the kernel and bias that make tokens of control latents; names, down, up: of the layers with a LoRA.

    The transformer that is given is frozen, and changed: its layers get the LoRA. rank 0: none.
    """

    def __init__(self, transformer: HeliosTransformer, rank: int):
        super().__init__()
        config = transformer.config
        self.weight = nn.Parameter(torch.zeros(config.dim, config.in_channels, *config.patch_size))
        self.bias = nn.Parameter(torch.zeros(config.dim))
        self.config, self.names, self.down, self.up = config, [], nn.ParameterList(), nn.ParameterList()
        for block in transformer.blocks if rank else ():
            block.attn1.separate = True
        for name in [name for name, _ in transformer.named_modules() if rank and re.fullmatch(TARGETS, name)]:
            parent, _, last = name.rpartition(".")
            layer = LowRankLayer(transformer.get_submodule(name), rank)
            transformer.get_submodule(parent)._modules[last] = layer
            self.names.append(name)
            self.down.append(layer.down)
            self.up.append(layer.up)

    def tokens(self, z: Tensor, keep: Tensor) -> Tensor:
        """Of control latents [b c t h w]; keep [b]: 0 where a sample goes without."""
        return tokens(z, self.weight, self.bias) * keep.view(-1, 1, 1)

    def save(self, file: Path, policy: str, extractor: str) -> Path:
        """The file that `control.read_adapter` reads, in bfloat16."""
        held = {f"{EMBEDDING}.weight": self.weight, f"{EMBEDDING}.bias": self.bias}
        for name, down, up in zip(self.names, self.down, self.up):
            held |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
        held = {name: value.to(torch.bfloat16) for name, value in held.items()}
        return save(held, file, adapter_facts(self.config, policy, extractor))


def open_frozen(source, config: TransformerConfig, device="cpu") -> HeliosTransformer:
    """The transformer of a checkpoint's source in float32, its layers as published: not joined, without gradients."""
    return build_and_load(lambda: HeliosTransformer(config), source, lambda _: torch.float32, device)
