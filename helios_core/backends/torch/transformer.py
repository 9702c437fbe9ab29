"""The Helios transformer in torch: what a step needs once per prompt and chunk, the block, the model.

Unusual here, all exact:
- history and current tokens are two residual streams, float32, with a modulation each; history's is constant;
- text keys and values are computed once per prompt. Padding rows are exact zeros and all alike, so they are kept as
  one key whose logit is raised by the logarithm of their number;
- patch embeddings and rotations of the history are computed once per chunk, rotations of the grid once per stage;
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
from .. import rope
from .kernels import spare
from .layers import Attention, FeedForward, Modulation, OutputNorm, TimeTextEmbedding, gated_add, modulated_norm


class TextContext(NamedTuple):
    """keys, values: per block [b h m d]; bias [1 1 1 m] for the folded padding, or None."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None


@dataclass
class HistoryContext:
    """tokens [b n d] float32, their rotations [n d/2], their modulation (timestep 0) per block and branch, frame
    numbers of the current chunk."""

    tokens: Tensor
    rotations: Tensor
    modulations: list[tuple[Modulation, Modulation]]
    current_index: tuple[int, ...]
    grids: dict = field(default_factory=dict)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.attn1 = Attention(config, config.is_amplify_history)
        self.attn2 = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(config.dim, config.ffn_dim)
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
        x = torch.add(x, self.attn2.cross(self.norm2(x).to(dtype), *text), out=spare(x))
        streams = [*history, x]
        return gated_add(streams, self.ffn(modulated_norm(streams, feed, self.eps, dtype)), feed)


class HeliosTransformer(nn.Module):
    """Predicts the flow velocity of one chunk. `on_block` is called before every block and may raise to stop.

    streamer: an `offload.BlockStream` where the blocks' weights stay in host memory.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.on_block = None
        self.streamer = None
        sizes = {name: tuple(f * p for p in config.patch_size) for name, f in (("short", 1), ("mid", 2), ("long", 4))}
        self.patch_embedding = nn.Conv3d(config.in_channels, config.dim, config.patch_size, config.patch_size)
        self.patch_short = nn.Conv3d(config.in_channels, config.dim, sizes["short"], sizes["short"])
        self.patch_mid = nn.Conv3d(config.in_channels, config.dim, sizes["mid"], sizes["mid"])
        self.patch_long = nn.Conv3d(config.in_channels, config.dim, sizes["long"], sizes["long"])
        self.condition_embedder = TimeTextEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = OutputNorm(config)
        self.proj_out = nn.Linear(config.dim, config.out_channels * math.prod(config.patch_size))

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.proj_out.weight.device

    def fuse(self) -> HeliosTransformer:
        """Joins the self-attention projections; for inference."""
        for block in self.blocks:
            block.attn1.fuse()
        return self

    def each_block(self, part: str = ""):
        """The blocks in order, each with its weights (those of `part`) on the device until the next is asked for."""
        return self.blocks if self.streamer is None else self.streamer(self.blocks, part)

    def array(self, values) -> Tensor:
        """numpy or torch -> float32 on this model's device."""
        return torch.as_tensor(values).to(self.device, torch.float32)

    def text_context(self, embedding) -> TextContext:
        """What the blocks need of a prompt. embedding [b m text_dim]; trailing zero rows are padding."""
        embedding = self.array(embedding)
        rows = torch.nonzero((embedding != 0).any(-1).any(0))
        used = int(rows[-1]) + 1 if len(rows) else 0
        padding = embedding.shape[1] - used
        kept = embedding[:, : used + 1] if padding > 1 else embedding
        text = self.condition_embedder.text_embedder(kept.to(self.dtype))
        pairs = [block.attn2.keys_values(text) for block in self.each_block("attn2")]
        bias = None
        if padding > 1:
            bias = torch.zeros(1, 1, 1, used + 1, device=self.device, dtype=self.dtype)
            bias[..., -1] = math.log(padding)
        return TextContext([k for k, _ in pairs], [v for _, v in pairs], bias)

    def history_context(self, parts) -> HistoryContext:
        """Tokens and rotations of a `history.Parts`; once per chunk."""
        long, mid, short = (
            rearrange(embed_patches(embed, self.array(x)), "b d t h w -> b (t h w) d").float()
            for embed, x in (
                (self.patch_long, parts.long),
                (self.patch_mid, parts.mid),
                (self.patch_short, parts.short),
            )
        )
        _, ph, pw = self.config.patch_size
        grid = (parts.short.shape[3] // ph, parts.short.shape[4] // pw)
        rotations = rope.history_rotations(parts, *grid, self.config.rope_dim, self.config.rope_theta)
        _, vectors = self.condition_embedder(torch.zeros(1, device=self.device))
        return HistoryContext(
            torch.cat([long, mid, short], dim=1),
            torch.from_numpy(rotations).to(self.device),
            self.modulations(vectors),
            parts.current_index,
        )

    def modulations(self, vectors: Tensor) -> list[tuple[Modulation, Modulation]]:
        """Of every block: attention's and the feed-forward's, from a timestep's modulation vectors [b 6 d]."""
        tables = torch.stack([block.scale_shift_table for block in self.blocks])
        parts = rearrange(tables + vectors.float(), "l b (branch part) d -> part l branch b 1 d", part=3)
        parts = (parts[0], 1 + parts[1], parts[2])
        return [tuple(map(Modulation, *branches)) for branches in zip(*parts)]

    def rotations(self, history: HistoryContext | None, grid: tuple[int, int, int]) -> Tensor:
        """Rotations of history and current tokens; once per chunk and stage."""
        if history is not None and grid in history.grids:
            return history.grids[grid]
        index = range(grid[0]) if history is None else history.current_index
        own = rope.current_rotations(index, *grid[1:], self.config.rope_dim, self.config.rope_theta)
        own = torch.from_numpy(own).to(self.device)
        if history is None:
            return own
        return history.grids.setdefault(grid, torch.cat([history.rotations, own]))

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: float, text: TextContext, history: HistoryContext | None = None) -> Tensor:
        """`forward` for sampling: one timestep for the whole batch."""
        return self(x, torch.full((1,), t, device=self.device), text, history)

    def forward(self, x: Tensor, t: Tensor, text: TextContext, history: HistoryContext | None = None) -> Tensor:
        """Velocity [b c t h w] float32 of latents x [b c t h w] at timesteps t [1] or [b]."""
        tokens = self.patch_embedding(x.to(self.dtype))
        grid = tuple(tokens.shape[2:])
        streams = [rearrange(tokens, "b d t h w -> b (t h w) d").float()]
        rotations = self.rotations(history, grid)
        embedding, vectors = self.condition_embedder(t)
        mods = [self.modulations(vectors)]
        if history is not None:
            streams, mods = [history.tokens.clone(), *streams], [history.modulations, *mods]
        for i, (block, mod) in enumerate(zip(self.each_block(), zip(*mods))):
            if self.on_block is not None:
                self.on_block()
            of_block = (text.keys[i], text.values[i], text.bias)
            streams = block(streams, mod, rotations, of_block, last=i + 1 == len(self.blocks))
        out = self.proj_out(self.norm_out(streams[-1], embedding, self.dtype))
        pt, ph, pw = self.config.patch_size
        pattern = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        return rearrange(out, pattern, t=grid[0], h=grid[1], pt=pt, ph=ph, pw=pw).float()


def embed_patches(embed: nn.Conv3d, x: Tensor) -> Tensor:
    """A patch embedding; the ends of t, h and w are repeated up to a multiple of the patch. x [b c t h w]."""
    pads = [p for size, k in zip(x.shape[:1:-1], embed.kernel_size[::-1], strict=True) for p in (0, -size % k)]
    if any(pads):
        x = F.pad(x, pads, mode="replicate")
    return embed(x.to(embed.weight.dtype))
