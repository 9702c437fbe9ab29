"""The Helios transformer in MLX: what a step needs once per prompt and chunk, the block, the model.

The twin of ../torch/transformer.py, with the same exact savings: two residual streams, float32, the history's with a
constant modulation; text keys and values once per prompt, its padding folded into one key; the history's patch
embeddings once per chunk, rotations once per size and frame numbers; the last block updates the current tokens only.
Nothing of a step is evaluated here: it is one graph, which the pipeline settles. What is kept of a prompt is, so that
another thread may use it.
Module names are the published checkpoint's; patch kernels are [out t h w in], channels last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from einops import rearrange
from mlx.core import array
from mlx.core import compile as jit
from mlx.utils import tree_flatten

from ...config import TransformerConfig
from ...text import Embedding
from .. import rope
from ..recent import Recent, digest
from .arrays import evaluate, to_array
from .layers import Attention, FeedForward, Modulation, OutputNorm, TimeTextEmbedding, gated_add, modulated_norm

PROMPTS = 2  # whose keys and values stay: each is layers * tokens * dim * 2 numbers, 420 MB for 512 tokens at 14B
TABLES = 6  # of rotations: the three stages of two sizes, 38 MB for one of 1280x768


class TextContext(NamedTuple):
    """keys, values: per block [b h m d]; bias [1 1 1 m] for the folded padding, or None."""

    keys: list[array]
    values: list[array]
    bias: array | None


@dataclass
class HistoryContext:
    """tokens [b n d] float32, their modulation (timestep 0) per block and branch, what their rotations depend on.

    control: by their number, tokens that are added to the current ones.
    """

    tokens: array
    modulations: list[tuple[Modulation, Modulation]]
    window: rope.Window
    control: dict[int, array] = field(default_factory=dict)


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, as one product over the patches."""

    def __init__(self, channels: int, dim: int, patch: tuple[int, int, int]):
        super().__init__()
        self.weight = mx.random.normal((dim, *patch, channels)) / math.sqrt(channels * math.prod(patch))
        self.bias = mx.zeros(dim)

    @property
    def kernel_size(self) -> tuple[int, int, int]:
        """Latents to a patch along t, h and w."""
        return self.weight.shape[1:4]

    def __call__(self, x: array) -> array:
        """Latents [b c t h w] -> tokens [b n d] in the weights' dtype."""
        pt, ph, pw = self.kernel_size
        x = rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)", pt=pt, ph=ph, pw=pw)
        return mx.addmm(self.bias, x.astype(self.weight.dtype), self.weight.reshape(len(self.weight), -1).T)


class Block(nn.Module):
    """Self-attention over history and current tokens, cross-attention to the text, feed-forward."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.attn1 = Attention(config, config.is_amplify_history)
        self.attn2 = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.scale_shift_table = mx.random.normal((1, 6, config.dim)) / config.dim**0.5

    def __call__(self, streams: list[array], mods: list, rotations: array, text, last: bool = False) -> list[array]:
        """streams: (history, current) or (current,), each [b n d]; mods: per stream (attention's, feed-forward's).

        text: keys, values and bias of this block. The last block drops the history, which nothing reads any more.
        """
        dtype = self.ffn.net[2].dtype
        attention, feed = zip(*mods)
        split = streams[0].shape[1] if len(streams) > 1 else 0
        y = modulated_norm(streams, attention, self.eps, dtype)
        if last:
            streams, attention, feed = streams[-1:], attention[-1:], feed[-1:]
        *history, x = gated_add(streams, self.attn1(y, rotations, split, split if last else 0), attention)
        x = x + self.attn2.cross(self.norm2(x).astype(dtype), *text)
        streams = [*history, x]
        return gated_add(streams, self.ffn(modulated_norm(streams, feed, self.eps, dtype)), feed)


class HeliosTransformer(nn.Module):
    """Predicts the flow velocity of one chunk. `on_block` is called before every step and may raise to stop.

    Between its blocks there is nothing to stop: they are only described there. compiled: the forward, if `jit` was
    called. prompts, tables: what is kept of prompts and sizes; `forget` drops it. A copy that shares the weights shares
    them too.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.on_block = None
        self.compiled = None
        self.prompts, self.tables = Recent(PROMPTS), Recent(TABLES)
        sizes = {name: tuple(f * p for p in config.patch_size) for name, f in (("short", 1), ("mid", 2), ("long", 4))}
        self.patch_embedding = PatchEmbed(config.in_channels, config.dim, config.patch_size)
        self.patch_short = PatchEmbed(config.in_channels, config.dim, sizes["short"])
        self.patch_mid = PatchEmbed(config.in_channels, config.dim, sizes["mid"])
        self.patch_long = PatchEmbed(config.in_channels, config.dim, sizes["long"])
        self.condition_embedder = TimeTextEmbedding(config)
        self.blocks = [Block(config) for _ in range(config.num_layers)]
        self.norm_out = OutputNorm(config)
        self.proj_out = nn.Linear(config.dim, config.out_channels * math.prod(config.patch_size))

    @property
    def dtype(self) -> mx.Dtype:
        """That of the matrix products, which the weights have."""
        return self.proj_out.weight.dtype

    def fuse(self) -> HeliosTransformer:
        """Joins the self-attention projections, a block at a time."""
        for block in self.blocks:
            block.attn1.fuse()
            evaluate(block.attn1.to_qkv.parameters())
        return self

    def jit(self) -> HeliosTransformer:
        """Compiles the forward: a graph per size and length of the prompt, with the weights among its inputs."""
        self.compiled = jit(self.forward, inputs=[self])
        return self

    def array(self, values) -> array:
        """numpy, torch or MLX -> float32."""
        return to_array(values)

    def forget(self) -> None:
        """Drops what is kept of prompts and sizes."""
        self.prompts.clear()
        self.tables.clear()

    def text_context(self, embedding) -> TextContext:
        """What the blocks need of a prompt, an `Embedding` or an array [b m text_dim] that ends in padding.

        The last PROMPTS of them are kept, by content, type and the very weights. A weight changed in place (`+=`) is
        not seen: call `forget`.
        """
        embedding = Embedding.of(embedding)
        rows = self.array(embedding.rows)
        padding = embedding.length - rows.shape[1]
        kept = mx.pad(rows, [(0, 0), (0, 1), (0, 0)]) if padding else rows
        key = (digest(np.asarray(kept)), padding, self.dtype)
        return self.prompts(key, lambda: self.keys_values(kept, padding), self.text_weights())

    def text_weights(self) -> list[array]:
        """All that the keys and values of a prompt depend on beside its embedding."""
        layers = [self.condition_embedder.text_embedder]
        layers += [block.attn2[name] for block in self.blocks for name in ("to_k", "to_v", "norm_k")]
        return [weight for layer in layers for _, weight in tree_flatten(layer.parameters())]

    def keys_values(self, rows: array, padding: int) -> TextContext:
        """Of a prompt's rows [b m text_dim], of which the last stands for all the padding if there is more than one."""
        text = self.condition_embedder.text_embedder(rows.astype(self.dtype))
        pairs = [block.attn2.keys_values(text) for block in self.blocks]
        bias = None
        if padding > 1:
            folded = mx.arange(rows.shape[1]) == rows.shape[1] - 1
            bias = mx.where(folded, math.log(padding), 0.0).astype(self.dtype)[None, None, None]
        found = TextContext([k for k, _ in pairs], [v for _, v in pairs], bias)
        evaluate(*found.keys, *found.values, *([] if bias is None else [bias]))
        return found

    def history_context(self, parts) -> HistoryContext:
        """Tokens of a `history.HistoryParts`, and what goes with them; once per chunk."""
        long, mid, short = (
            embed_patches(embed, self.array(x)).astype(mx.float32)
            for embed, x in (
                (self.patch_long, parts.long),
                (self.patch_mid, parts.mid),
                (self.patch_short, parts.short),
            )
        )
        _, vectors = self.condition_embedder(mx.zeros(1))
        window = rope.Window.of(parts, self.config.patch_size)
        control = {x.shape[1]: self.array(x) for x in parts.control}
        return HistoryContext(mx.concatenate([long, mid, short], axis=1), self.modulations(vectors), window, control)

    def modulations(self, vectors: array) -> list[tuple[Modulation, Modulation]]:
        """Of every block: attention's and the feed-forward's, from a timestep's modulation vectors [b 6 d]."""
        tables = mx.stack([block.scale_shift_table for block in self.blocks])
        parts = rearrange(tables + vectors.astype(mx.float32), "l b (r part) d -> part l r b 1 d", part=3)
        parts = (parts[0], 1 + parts[1], parts[2])
        return [tuple(map(Modulation, *branches)) for branches in zip(*parts)]

    def rotations(self, history: HistoryContext | None, grid: tuple[int, int, int]) -> array:
        """Rotations [n d/2] of history and current tokens; the last TABLES of them are kept."""
        window = None if history is None else history.window

        def make() -> array:
            return mx.array(rope.rotations(window, grid, self.config.rope_dim, self.config.rope_theta))

        return self.tables((window, grid), make)

    def velocity(self, x: array, t: float, text: TextContext, history: HistoryContext | None = None) -> array:
        """The model for sampling: one timestep for the whole batch."""
        if self.on_block is not None:
            self.on_block()
        return self(x, mx.array([t], dtype=mx.float32), text, history)

    def velocities(self, x: array, t: float, texts, history: HistoryContext | None = None) -> list[array]:
        """The same for several prompts."""
        return [self.velocity(x, t, text, history) for text in texts]

    def __call__(self, x: array, t: array, text: TextContext, history: HistoryContext | None = None) -> array:
        """Velocity [b c t h w] float32 of latents x [b c t h w] at timesteps t [1] or [b]."""
        grid = self.grid(x)
        rotations, past = self.rotations(history, grid), None
        if history is not None:
            past = (history.tokens, history.modulations, history.control.get(math.prod(grid)))
        return (self.compiled or self.forward)(x, t, tuple(text), rotations, past)

    def grid(self, x: array) -> tuple[int, ...]:
        """Patches of latents [b c t h w] along t, h and w."""
        return tuple(size // patch for size, patch in zip(x.shape[2:], self.config.patch_size, strict=True))

    def forward(self, x: array, t: array, text: tuple, rotations: array, past: tuple | None) -> array:
        """Of arrays alone, in tuples and lists, so that it can be compiled. past: tokens, modulations, control."""
        grid, (pt, ph, pw), (keys, values, bias) = self.grid(x), self.config.patch_size, text
        streams = [self.patch_embedding(x).astype(mx.float32)]
        embedding, vectors = self.condition_embedder(t)
        mods = [self.modulations(vectors)]
        if past is not None:
            streams = streams if past[2] is None else [streams[0] + past[2]]
            streams, mods = [past[0], *streams], [[[Modulation(*m) for m in mod] for mod in past[1]], *mods]
        for i, (block, mod) in enumerate(zip(self.blocks, zip(*mods))):
            of_block = (keys[i], values[i], bias)
            streams = block(streams, mod, rotations, of_block, last=i + 1 == len(self.blocks))
        out = self.proj_out(self.norm_out(streams[-1], embedding, self.dtype))
        pattern = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        return rearrange(out, pattern, t=grid[0], h=grid[1], pt=pt, ph=ph, pw=pw).astype(mx.float32)


def embed_patches(embed: PatchEmbed, x: array) -> array:
    """A patch embedding; the ends of t, h and w are repeated up to a multiple of the patch. x [b c t h w]."""
    pads = [(0, -size % k) for size, k in zip(x.shape[2:], embed.kernel_size, strict=True)]
    if any(end for _, end in pads):
        x = mx.pad(x, [(0, 0), (0, 0), *pads], mode="edge")
    return embed(x)
