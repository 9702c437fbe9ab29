"""The Helios transformer in torch: what a step needs once per prompt and chunk, the block, the model.

Unusual here, all exact:
- history and current tokens are two residual streams, float32, with a modulation each; history's is constant;
- text keys and values are computed once per prompt: the last two stay, such as a prompt and its negative, or the two
  of a change. Padding rows are exact zeros and all alike, so they are kept as one key whose logit is raised by the
  logarithm of their number;
- patch embeddings of the history are computed once per chunk, rotations once per size and frame numbers;
- the last block updates the current tokens only.
Module names are the published checkpoint's (diffusers' HeliosTransformer3DModel). Layers: layers.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...checkpoint import FLOAT32 as FLOAT32
from ...config import TransformerConfig
from ...text import Embedding
from .. import rope
from ..recent import Recent, digest
from . import compiled
from .fused import add, gated_add, modulated_norm, norm
from .layers import Attention, FeedForward, Layers, Modulation, OutputNorm, TimeTextEmbedding
from .transfer import send

PROMPTS = 2  # whose keys and values stay: each is layers * tokens * dim * 2 numbers, 420 MB for 512 tokens at 14B
# What of a block computes once the keys and values of the prompt are there: a seventh less to stream or to read.
SAMPLED = ("attn1", "attn2.to_q", "attn2.norm_q", "attn2.to_out", "ffn")
TABLES = 6  # of rotations: the three stages of two sizes, 38 MB for one of 1280x768


class TextContext(NamedTuple):
    """keys, values: per block [b h m d]; bias [1 1 1 m] float32 for the folded padding, zero
    but for the last key, or None."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None


@dataclass
class HistoryContext:
    """tokens [b n d] float32, their modulation (timestep 0) per block and branch, what their rotations depend on.

    control: by their number, tokens that are added to the current ones.
    """

    tokens: Tensor
    modulations: list[tuple[Modulation, Modulation]]
    window: rope.Window
    control: dict[int, Tensor] = field(default_factory=dict)


class Block(nn.Module):
    """Self-attention over history and current tokens, cross-attention to the text, feed-forward."""

    def __init__(self, config: TransformerConfig, layers=Layers):
        super().__init__()
        self.eps = config.eps
        self.attn1 = Attention(config, config.is_amplify_history, layers)
        self.attn2 = Attention(config, layers=layers)
        self.norm2 = layers.LayerNorm(config.dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(config.dim, config.ffn_dim, layers)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def forward(self, streams: list[Tensor], mods: list, rotations: Tensor, text, last: bool = False) -> list[Tensor]:
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
        x = add(x, self.attn2.cross(norm(x, self.norm2, dtype), *text))
        streams = [*history, x]
        return gated_add(streams, self.ffn(modulated_norm(streams, feed, self.eps, dtype)), feed)


class HeliosTransformer(nn.Module):
    """Predicts the flow velocity of one chunk. `on_block` is called before every block and may raise to stop.

    streamer: an `offload.BlockStream` where the blocks' weights stay in host memory. ahead: an `ahead.Ahead` where they
    are mapped from files. ranks: the `parallel.Ranks` that compute it together, if there are any. prompts, tables: what
    is kept of prompts and sizes; `forget` drops it. A copy that shares the weights shares them too. layers: what it is
    built from. version: says what its weights are to a program that changes them unseen. run: how a block is run.
    """

    def __init__(self, config: TransformerConfig, layers=Layers):
        super().__init__()
        self.config = config
        self.on_block = self.streamer = self.ahead = self.version = self.ranks = None
        self.run = compiled.run
        self.prompts, self.tables = Recent(PROMPTS), Recent(TABLES)
        sizes = {name: tuple(f * p for p in config.patch_size) for name, f in (("short", 1), ("mid", 2), ("long", 4))}
        self.patch_embedding = layers.Conv3d(config.in_channels, config.dim, config.patch_size, config.patch_size)
        self.patch_short = layers.Conv3d(config.in_channels, config.dim, sizes["short"], sizes["short"])
        self.patch_mid = layers.Conv3d(config.in_channels, config.dim, sizes["mid"], sizes["mid"])
        self.patch_long = layers.Conv3d(config.in_channels, config.dim, sizes["long"], sizes["long"])
        self.condition_embedder = TimeTextEmbedding(config, layers)
        self.blocks = nn.ModuleList(Block(config, layers) for _ in range(config.num_layers))
        self.norm_out = OutputNorm(config)
        self.proj_out = layers.Affine(config.dim, config.out_channels * math.prod(config.patch_size))

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrix products, which the weights have."""
        return self.proj_out.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.proj_out.weight.device

    def fuse(self) -> HeliosTransformer:
        """Joins the self-attention projections; for inference."""
        for block in self.blocks:
            block.attn1.fuse()
        return self

    def attend_by(self, attention) -> None:
        """Has all blocks attend by a function as `kernels.attention`."""
        for block in self.blocks:
            block.attn1.attention = block.attn2.attention = attention

    def each_block(self, *parts: str):
        """The blocks in order, each with its weights on the device until the next is asked for; parts: only theirs."""
        blocks = self.blocks if self.streamer is None else self.streamer(self.blocks, *parts)
        return blocks if self.ahead is None or torch.compiler.is_compiling() else self.ahead(blocks, *parts)

    def forget(self) -> None:
        """Drops what is kept of prompts and sizes, as before the weights move to another device."""
        self.prompts.clear()
        self.tables.clear()

    def array(self, values) -> Tensor:
        """numpy or torch -> float32 on this model's device."""
        return send(torch.as_tensor(values).to(torch.float32), self.device)

    def text_context(self, embedding) -> TextContext:
        """What the blocks need of a prompt, an `Embedding` or an array [b m text_dim] that ends in padding.

        In inference mode the last PROMPTS of them are kept, by content, device, type and the very weights; weights
        that want gradients are never kept for. A weight changed by way of its `data` is not seen: call `forget`.
        """
        embedding = Embedding.of(embedding)
        rows = torch.as_tensor(embedding.rows).to(torch.float32)
        padding = embedding.length - rows.shape[1]
        kept = F.pad(rows, (0, 0, 0, 1)) if padding else rows
        weights = self.text_weights()
        if not torch.is_inference_mode_enabled() or any(w.requires_grad for w in weights):
            return self.keys_values(self.array(kept), padding)
        key = (digest(kept.cpu().numpy()), padding, self.device, self.dtype, self.version, *map(state, weights))
        return self.prompts(key, lambda: self.keys_values(self.array(kept), padding), weights)

    def text_weights(self) -> list[Tensor]:
        """All that the keys and values of a prompt depend on beside its embedding."""
        layers = [self.condition_embedder.text_embedder]
        layers += [getattr(block.attn2, name) for block in self.blocks for name in ("to_k", "to_v", "norm_k")]
        return [t for layer in layers for t in (*layer.parameters(), *layer.buffers())]

    def keys_values(self, rows: Tensor, padding: int) -> TextContext:
        """Of a prompt's rows [b m text_dim], of which the last stands for all the padding if there is more than one."""
        text = self.condition_embedder.text_embedder(rows.to(self.dtype))
        pairs = [block.attn2.keys_values(text) for block in self.each_block("attn2.to_k", "attn2.to_v")]
        bias = None
        if padding > 1:
            bias = torch.zeros(1, 1, 1, rows.shape[1], device=self.device)
            bias[..., -1] = math.log(padding)
        return TextContext([k for k, _ in pairs], [v for _, v in pairs], bias)

    def history_context(self, parts) -> HistoryContext:
        """Tokens of a `history.HistoryParts`, and what goes with them; once per chunk."""
        long, mid, short = (
            rearrange(embed_patches(embed, self.array(x).to(self.dtype)), "b d t h w -> b (t h w) d").float()
            for embed, x in (
                (self.patch_long, parts.long),
                (self.patch_mid, parts.mid),
                (self.patch_short, parts.short),
            )
        )
        _, vectors = self.condition_embedder(torch.zeros(1, device=self.device))
        window = rope.Window.of(parts, self.config.patch_size)
        control = {x.shape[1]: self.array(x) for x in parts.control}
        return HistoryContext(torch.cat([long, mid, short], dim=1), self.modulations(vectors), window, control)

    def modulations(self, vectors: Tensor) -> list[tuple[Modulation, Modulation]]:
        """Of every block: attention's and the feed-forward's, from a timestep's modulation vectors [b 6 d]."""
        tables = torch.stack([block.scale_shift_table for block in self.blocks]).to(vectors.device)
        parts = rearrange(tables + vectors.float(), "l b (branch part) d -> part l branch b 1 d", part=3)
        parts = (parts[0], 1 + parts[1], parts[2])
        return [tuple(map(Modulation, *branches)) for branches in zip(*parts)]

    def rotations(self, history: HistoryContext | None, grid: tuple[int, int, int]) -> Tensor:
        """Cosines and sines [n d/2 2] of history and current tokens; the last TABLES of them are kept."""
        window = None if history is None else history.window

        @torch.inference_mode(False)  # so that a training may use them after a sampling
        def make() -> Tensor:
            table = rope.rotations(window, grid, self.config.rope_dim, self.config.rope_theta)
            return send(torch.view_as_real(torch.from_numpy(table)), self.device)

        return self.tables((window, grid, self.device), make)

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: float, text: TextContext, history: HistoryContext | None = None) -> Tensor:
        """`forward` for sampling: one timestep for the whole batch."""
        return self(x, torch.full((1,), t, device=self.device), text, history)

    @torch.inference_mode()
    def velocities(self, x: Tensor, t: float, texts, history: HistoryContext | None = None) -> list[Tensor]:
        """The same for several prompts. Where blocks stream, each is fetched once for all of them."""
        if self.streamer is None:
            return [self.velocity(x, t, text, history) for text in texts]
        return self.branches(x, torch.full((1,), t, device=self.device), texts, history)

    def forward(self, x: Tensor, t: Tensor, text: TextContext, history: HistoryContext | None = None) -> Tensor:
        """Velocity [b c t h w] float32 of latents x [b c t h w] at timesteps t [1] or [b]."""
        return self.branches(x, t, (text,), history)[0]

    def branches(self, x: Tensor, t: Tensor, texts, history: HistoryContext | None = None) -> list[Tensor]:
        """`forward` for each of several prompts, block by block."""
        tokens = self.patch_embedding(x.to(self.dtype))
        grid = tuple(tokens.shape[2:])
        streams = [rearrange(tokens, "b d t h w -> b (t h w) d").float().contiguous()]  # norms read rows
        rotations = self.rotations(history, grid)
        embedding, vectors = self.condition_embedder(t)
        mods = [self.modulations(vectors)]
        if history is not None:
            if (control := history.control.get(streams[0].shape[1])) is not None:
                streams = [streams[0] + control]
            streams, mods = [history.tokens.clone(), *streams], [history.modulations, *mods]
        if self.ranks is not None:
            streams, rotations = self.ranks.divide(streams, rotations)
        each = [streams, *([stream.clone() for stream in streams] for _ in texts[1:])]  # blocks write into theirs
        for i, (block, mod) in enumerate(zip(self.each_block(*SAMPLED), zip(*mods))):
            if self.on_block is not None:
                self.on_block()
            last = i + 1 == len(self.blocks)
            for k, text in enumerate(texts):
                each[k] = self.run(block, each[k], mod, rotations, (text.keys[i], text.values[i], text.bias), last)
        return [self.unpatch(self.norm_out(streams[-1], embedding, self.dtype), grid) for streams in each]

    def unpatch(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """The last projection: tokens [b n d] -> velocity [b c t h w] float32."""
        out = self.proj_out(tokens)
        if self.ranks is not None:
            out = self.ranks.gather(out)
        pt, ph, pw = self.config.patch_size
        pattern = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        return rearrange(out, pattern, t=grid[0], h=grid[1], pt=pt, ph=ph, pw=pw).float()


def embed_patches(embed: nn.Conv3d, x: Tensor) -> Tensor:
    """A patch embedding; the ends of t, h and w are repeated up to a multiple of the patch. x [b c t h w]."""
    pads = [p for size, k in zip(x.shape[:1:-1], embed.kernel_size[::-1], strict=True) for p in (0, -size % k)]
    if any(pads):
        x = F.pad(x, pads, mode="replicate")
    return embed(x)


def state(weight: Tensor) -> tuple[int, int]:
    """What changes when a weight is given other numbers: its memory, or torch's count of changes in place."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
