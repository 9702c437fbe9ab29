"""The layers of the Helios transformer: modulated norms, attention, feed-forward, embeddings.

The residual stream is a list of float32 tensors [b n d]: history tokens (if any), then the current chunk's. Each has
its own modulation, so neither is ever expanded per token. Matrix products run in the weights' dtype.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...config import TransformerConfig
from . import fused, kernels
from .fused import modulated_norm


class Modulation(NamedTuple):
    """shift, scale (with the one added) and gate of one branch for one stream, each [b 1 d]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor | None = None


class Affine(nn.Linear):
    """A linear layer of the embeddings and of the output."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and takes its input as."""
        return self.weight.dtype


class Linear(Affine):
    """A linear layer as attention and feed-forward call it; quantised layers and LoRAs stand in for it."""

    def joins(self, other: nn.Module) -> bool:
        """Whether it and another layer of the same input can be one."""
        return type(other) is type(self)

    @classmethod
    def join(cls, layers: list[Linear]) -> Linear:
        """Layers of one input as one layer of all their outputs, without gradients."""
        joined = cls(1, 1, device="meta")
        for name in ("weight", "bias"):
            parts = torch.cat([getattr(layer, name).detach() for layer in layers])
            setattr(joined, name, nn.Parameter(parts, requires_grad=False))
        return joined

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o]; gelu: then GELU, where the kernel has both in one pass."""
        return kernels.linear(x, self.weight, self.bias, gelu)


class QKNorm(nn.RMSNorm):
    """The gains of a norm that attention computes together with its rotation."""

    def gain(self, device: torch.device) -> Tensor:
        """[d] float32, on the device it computes on."""
        return self.weight.float()


class Layers:
    """What the network is built from. A program around it may bring others, with its own ways to keep and to move the
    weights: they take the same arguments and have the same methods. attention: as `kernels.attention`. separate:
    queries, keys and values are always three products."""

    Linear, Affine, QKNorm = Linear, Affine, QKNorm
    Conv3d, LayerNorm = nn.Conv3d, nn.LayerNorm
    attention = staticmethod(kernels.attention)
    separate = False


class Attention(nn.Module):
    """Self-attention with rotary positions, or cross-attention to a prompt; norms over all heads together."""

    def __init__(self, config: TransformerConfig, amplify_history: bool = False, layers=Layers):
        super().__init__()
        dim = config.dim
        self.heads = config.num_attention_heads
        self.eps = config.eps
        self.attention, self.separate = layers.attention, layers.separate
        self.to_q = layers.Linear(dim, dim)
        self.to_k = layers.Linear(dim, dim)
        self.to_v = layers.Linear(dim, dim)
        self.to_out = nn.ModuleList([layers.Linear(dim, dim), nn.Identity()])
        self.norm_q = layers.QKNorm(dim, config.eps)
        self.norm_k = layers.QKNorm(dim, config.eps)
        per_head = config.history_scale_mode == "per_head"
        scale = nn.Parameter(torch.ones(self.heads if per_head else 1)) if amplify_history else None
        self.register_parameter("history_key_scale", scale)

    def joined(self, name: str) -> Tensor:
        """weight or bias of the query, key and value projections as one."""
        return torch.cat([getattr(layer, name) for layer in (self.to_q, self.to_k, self.to_v)])

    def fuse(self) -> None:
        """Joins the three projections into one for good; for inference, after loading. Not those of several forms."""
        if not all(self.to_q.joins(other) for other in (self.to_k, self.to_v)):
            self.separate = True
            return
        self.to_qkv = self.to_q.join([self.to_q, self.to_k, self.to_v])
        del self.to_q, self.to_k, self.to_v

    def project(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Queries and keys of tokens x [b n d], as one [b n 2 d] or as two [b n 1 d], and values [b n d]."""
        if self.separate:
            return [self.to_q(x)[:, :, None], self.to_k(x)[:, :, None]], self.to_v(x)
        if hasattr(self, "to_qkv"):
            qkv = self.to_qkv(x)
        else:
            qkv = kernels.linear(x, self.joined("weight"), self.joined("bias"))
        qk, v = qkv.split([2 * x.shape[-1], x.shape[-1]], dim=-1)
        return [rearrange(qk, "b n (m d) -> b n m d", m=2)], v

    def split_heads(self, x: Tensor) -> Tensor:
        """[b n (h d)] -> [b h n d]."""
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)

    def amplify(self, key: Tensor, split: int) -> Tensor:
        """The history's keys [b h n d] times a learned gain of 1 to 10."""
        if not split or self.history_key_scale is None:
            return key
        scale = self.history_key_scale.to(key.device)
        gain = (1 + 9 * torch.sigmoid(scale)).view(-1, 1, 1).to(key.dtype)
        return torch.cat([key[:, :, :split] * gain, key[:, :, split:]], dim=2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Of queries [b h n d] to keys and values [b h m d], projected back: [b n d]."""
        return self.to_out[0](rearrange(self.attention(q, k, v, bias), "b h n d -> b n (h d)"))

    def forward(self, x: Tensor, rotations: Tensor, split: int, first: int = 0) -> Tensor:
        """Self-attention over history (up to `split`) and current tokens [b n d]; results from token `first` on."""
        parts, v = self.project(x)
        gains = torch.stack([norm.gain(x.device) for norm in (self.norm_q, self.norm_k)]).chunk(len(parts))
        turn = partial(fused.turn, rotations=rotations, heads=self.heads, eps=self.eps)
        q, k = (turned for part, gain in zip(parts, gains) for turned in turn(part, gain))
        return self.attend(q[:, :, first:], self.amplify(k, split), self.split_heads(v))

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b h m d] of a prompt's embedded tokens [b m d]."""
        k = fused.rms_norm(self.to_k(text), self.norm_k.gain(text.device), self.eps)
        return tuple(self.split_heads(x).contiguous() for x in (k, self.to_v(text)))

    def cross(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Cross-attention of x [b n d] to a prompt's keys and values [b h m d]."""
        q = fused.rms_norm(self.to_q(x), self.norm_q.gain(x.device), self.eps)
        return self.attend(self.split_heads(q), keys, values, bias)


class GELU(nn.Module):
    """A linear layer, then GELU in its tanh form; named as the checkpoint has it."""

    def __init__(self, dim: int, inner: int, layers=Layers):
        super().__init__()
        self.proj = layers.Linear(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        """x [... i] -> [... o]."""
        return self.proj(x, gelu=True)


class FeedForward(nn.Module):
    """Linear, GELU, linear, token by token."""

    def __init__(self, dim: int, inner: int, layers=Layers):
        super().__init__()
        self.net = nn.ModuleList([GELU(dim, inner, layers), nn.Identity(), layers.Linear(inner, dim)])

    def forward(self, x: Tensor) -> Tensor:
        """x [b n d] -> [b n d]."""
        return kernels.by_rows(lambda part: self.net[2](self.net[0](part)), x)


class Projection(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, in_dim: int, dim: int, activation, layers=Layers):
        super().__init__()
        self.activation = activation
        self.linear_1 = layers.Affine(in_dim, dim)
        self.linear_2 = layers.Affine(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x [... i] -> [... d]."""
        return self.linear_2(self.activation(self.linear_1(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """[b] -> [b dim]: cosines, then sines. At t = 0: ones, then zeros."""
    frequency = torch.exp(torch.arange(dim // 2, device=t.device, dtype=torch.float32) * (-math.log(1e4) / (dim // 2)))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimeTextEmbedding(nn.Module):
    """The embeddings of timesteps, with what modulates every block, and of text."""

    def __init__(self, config: TransformerConfig, layers=Layers):
        super().__init__()
        self.freq_dim = config.freq_dim
        self.time_embedder = Projection(config.freq_dim, config.dim, F.silu, layers)
        self.time_proj = layers.Affine(config.dim, 6 * config.dim)
        self.text_embedder = Projection(config.text_dim, config.dim, gelu_tanh, layers)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [b] -> embedding [b d], modulation [b 6 d]."""
        embedding = self.time_embedder(sinusoid(t, self.freq_dim)).to(self.time_proj.dtype)
        return embedding, rearrange(self.time_proj(F.silu(embedding)), "b (n d) -> b n d", n=6)


class OutputNorm(nn.Module):
    """The norm before the last projection, modulated by the timestep."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, embedding: Tensor, dtype: torch.dtype) -> Tensor:
        """x [b n d] float32, embedding [b d] of the timestep -> [b n d] in `dtype`."""
        shift, scale = (self.scale_shift_table.to(x.device) + embedding.float()[:, None]).unsqueeze(2).unbind(1)
        return modulated_norm([x], [Modulation(shift, 1 + scale)], self.eps, dtype)
