"""The layers of the Helios transformer: modulated norms, attention, feed-forward, embeddings.

The residual stream is a list of float32 arrays [b n d]: history tokens (if any), then the current chunk's. Each has
its own modulation, so neither is ever expanded per token. Matrix products run in the weights' dtype; of mixed types
MLX makes the wider one, so that residuals and norms stay float32 without casts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from einops import rearrange
from mlx.core import array

from ...config import TransformerConfig


class Modulation(NamedTuple):
    """shift, scale (with the one added) and gate of one branch for one stream, each [b 1 d]."""

    shift: array
    scale: array
    gate: array | None = None


def modulated_norm(streams: list[array], mods: list[Modulation], eps: float, dtype: mx.Dtype) -> array:
    """LayerNorm of every stream with its own scale and shift, joined: [b n d] in `dtype`."""
    out = []
    for x, mod in zip(streams, mods, strict=True):
        if len(mod.scale) == 1:
            y = mx.fast.layer_norm(x, mod.scale[0, 0], mod.shift[0, 0], eps)
        else:
            y = mod.shift + mx.fast.layer_norm(x, None, None, eps) * mod.scale
        out.append(y.astype(dtype))
    return mx.concatenate(out, axis=1) if len(out) > 1 else out[0]


def gated_add(streams: list[array], update: array, mods: list[Modulation]) -> list[array]:
    """stream + gate * update [b n d], for every stream its part of the update."""
    parts = mx.split(update, [streams[0].shape[1]], axis=1) if len(streams) > 1 else [update]
    return [x + y * mod.gate for x, y, mod in zip(streams, parts, mods, strict=True)]


def rms_norm(x: array, weight: array, eps: float) -> array:
    """In float32 inside, over all heads together; float32 comes back."""
    return mx.fast.rms_norm(x.astype(mx.float32), weight.astype(mx.float32), eps)


def rotate(x: array, rotations: array) -> array:
    """Turns channel pairs of x [b n h d], float32, by complex rotations that broadcast to [b n h d/2]."""
    return (x.view(mx.complex64) * rotations).view(mx.float32)


class Linear(nn.Linear):
    """A linear layer as attention and feed-forward call it; quantised layers and LoRAs stand in for it."""

    @property
    def dtype(self) -> mx.Dtype:
        """What it computes in, and takes its input as."""
        return self.weight.dtype

    def joins(self, other: nn.Module) -> bool:
        """Whether it and another layer of the same input can be one."""
        return type(other) is type(self)

    @classmethod
    def join(cls, layers: list[Linear]) -> Linear:
        """Layers of one input as one layer of all their outputs."""
        joined = cls(1, 1)
        for name in ("weight", "bias"):
            setattr(joined, name, mx.concatenate([getattr(layer, name) for layer in layers]))
        return joined


class Attention(nn.Module):
    """Self-attention with rotary positions, or cross-attention to a prompt; norms over all heads together."""

    def __init__(self, config: TransformerConfig, amplify_history: bool = False):
        super().__init__()
        dim = config.dim
        self.heads = config.num_attention_heads
        self.eps = config.eps
        self.to_q = Linear(dim, dim)
        self.to_k = Linear(dim, dim)
        self.to_v = Linear(dim, dim)
        self.to_out = [Linear(dim, dim), nn.Identity()]
        self.norm_q = nn.RMSNorm(dim, config.eps)
        self.norm_k = nn.RMSNorm(dim, config.eps)
        if amplify_history:
            per_head = config.history_scale_mode == "per_head"
            self.history_key_scale = mx.ones(self.heads if per_head else 1)

    def fuse(self) -> None:
        """Joins the three projections into one for good; after loading. Not those of several forms."""
        if not all(self.to_q.joins(other) for other in (self.to_k, self.to_v)):
            return
        self.to_qkv = self.to_q.join([self.to_q, self.to_k, self.to_v])
        del self.to_q, self.to_k, self.to_v

    def project(self, x: array) -> list[array]:
        """Queries, keys and values [b n d] of tokens x [b n d]."""
        if "to_qkv" in self:
            return mx.split(self.to_qkv(x), 3, axis=-1)
        return [self.to_q(x), self.to_k(x), self.to_v(x)]

    def split_heads(self, x: array) -> array:
        """[b n (h d)] -> [b h n d]."""
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)

    def turn(self, x: array, norm: nn.RMSNorm, rotations: array) -> array:
        """Queries or keys [b n d], normalised and rotated in float32: [b h n d] in the type of x."""
        heads = rearrange(rms_norm(x, norm.weight, self.eps), "b n (h d) -> b n h d", h=self.heads)
        return rearrange(rotate(heads, rotations[:, None]).astype(x.dtype), "b n h d -> b h n d")

    def amplify(self, key: array, split: int) -> array:
        """The history's keys [b h n d] times a learned gain of 1 to 10."""
        if not split or "history_key_scale" not in self:
            return key
        gain = (1 + 9 * mx.sigmoid(self.history_key_scale)).reshape(-1, 1, 1).astype(key.dtype)
        return mx.concatenate([key[:, :, :split] * gain, key[:, :, split:]], axis=2)

    def attend(self, q: array, k: array, v: array, bias: array | None = None) -> array:
        """Of queries [b h n d] to keys and values [b h m d], projected back: [b n d]."""
        if len(k) < len(q):  # one prompt for a batch, which MLX's attention does not broadcast
            k, v = (mx.broadcast_to(x, (len(q), *x.shape[1:])) for x in (k, v))
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=bias)
        return self.to_out[0](rearrange(out, "b h n d -> b n (h d)"))

    def __call__(self, x: array, rotations: array, split: int, first: int = 0) -> array:
        """Self-attention over history (up to `split`) and current tokens [b n d]; results from token `first` on."""
        q, k, v = self.project(x)
        q = self.turn(q[:, first:], self.norm_q, rotations[first:])
        return self.attend(q, self.amplify(self.turn(k, self.norm_k, rotations), split), self.split_heads(v))

    def keys_values(self, text: array) -> tuple[array, array]:
        """Keys and values [b h m d] of a prompt's embedded tokens [b m d]."""
        k = rms_norm(self.to_k(text), self.norm_k.weight, self.eps).astype(text.dtype)
        return self.split_heads(k), self.split_heads(self.to_v(text))

    def cross(self, x: array, keys: array, values: array, bias: array | None) -> array:
        """Cross-attention of x [b n d] to a prompt's keys and values [b h m d]."""
        q = rms_norm(self.to_q(x), self.norm_q.weight, self.eps).astype(x.dtype)
        return self.attend(self.split_heads(q), keys, values, bias)


class GELU(nn.Module):
    """A linear layer, then GELU in its tanh form; named as the checkpoint has it."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = Linear(dim, inner)

    def __call__(self, x: array) -> array:
        """x [... i] -> [... o]."""
        return gelu_tanh(self.proj(x))


class FeedForward(nn.Module):
    """Linear, GELU, linear, token by token."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.net = [GELU(dim, inner), nn.Identity(), Linear(inner, dim)]

    def __call__(self, x: array) -> array:
        """x [b n d] -> [b n d]."""
        return self.net[2](self.net[0](x))


class Projection(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, in_dim: int, dim: int, activation):
        super().__init__()
        self.activation = activation
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def __call__(self, x: array) -> array:
        """x [... i] -> [... d]."""
        return self.linear_2(self.activation(self.linear_1(x)))


def gelu_tanh(x: array) -> array:
    """In float32 inside; not MLX's own, which is compiled and needs a compiler to run on a CPU."""
    y = x.astype(mx.float32)
    y = 0.5 * y * (1 + mx.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y)))
    return y.astype(x.dtype)


def silu(x: array) -> array:
    """x times the logistic function of x."""
    return x * mx.sigmoid(x)


def sinusoid(t: array, dim: int) -> array:
    """[b] -> [b dim]: cosines, then sines. At t = 0: ones, then zeros."""
    frequency = mx.exp(mx.arange(dim // 2, dtype=mx.float32) * (-math.log(1e4) / (dim // 2)))
    angle = t.astype(mx.float32)[:, None] * frequency
    return mx.concatenate([mx.cos(angle), mx.sin(angle)], axis=-1)


class TimeTextEmbedding(nn.Module):
    """The embeddings of timesteps, with what modulates every block, and of text."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.freq_dim = config.freq_dim
        self.time_embedder = Projection(config.freq_dim, config.dim, silu)
        self.time_proj = nn.Linear(config.dim, 6 * config.dim)
        self.text_embedder = Projection(config.text_dim, config.dim, gelu_tanh)

    def __call__(self, t: array) -> tuple[array, array]:
        """Timesteps [b] -> embedding [b d], modulation [b 6 d]."""
        embedding = self.time_embedder(sinusoid(t, self.freq_dim)).astype(self.time_proj.weight.dtype)
        return embedding, rearrange(self.time_proj(silu(embedding)), "b (n d) -> b n d", n=6)


class OutputNorm(nn.Module):
    """The norm before the last projection, modulated by the timestep."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.scale_shift_table = mx.random.normal((1, 2, config.dim)) / config.dim**0.5

    def __call__(self, x: array, embedding: array, dtype: mx.Dtype) -> array:
        """x [b n d] float32, embedding [b d] of the timestep -> [b n d] in `dtype`."""
        shift, scale = mx.split(self.scale_shift_table + embedding.astype(mx.float32)[:, None], 2, axis=1)
        return modulated_norm([x], [Modulation(shift, 1 + scale)], self.eps, dtype)
