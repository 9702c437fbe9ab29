"""The Helios transformer in torch.

Unusual here, all exact:
- modulation is two vectors per block, one for history tokens (timestep 0) and one for current tokens;
- text keys and values are computed once per prompt. Padding rows are exact zeros and all alike, so they are kept as
  one key whose logit is raised by the logarithm of their number;
- patch embeddings and rotations of the history are computed once per chunk, rotations of the grid once per stage;
- the residual stream is float32; matrix products run in the weights' dtype.
Module names are the published checkpoint's (diffusers' HeliosTransformer3DModel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ... import rope
from ...config import TransformerConfig

FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale")


class TextContext(NamedTuple):
    """keys, values: per block [b h m d]; bias [1 1 1 m] for the folded padding, or None."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None


@dataclass
class HistoryContext:
    """tokens [b n d], their rotations [n d/2], the modulation of timestep 0, frame numbers of the current chunk."""

    tokens: Tensor
    rotations: Tensor
    modulation: Tensor
    current_index: tuple[int, ...]
    grids: dict = field(default_factory=dict)


class Modulation(NamedTuple):
    """shift, scale and gate of one branch, each [b 1 d]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulated_norm(x: Tensor, split: int, mods: tuple[Modulation, Modulation], eps: float) -> Tensor:
    """LayerNorm with the history's scale and shift before `split`, the current chunk's behind it. x [b n d]."""
    parts = (x[:, :split], x[:, split:]) if split else (x,)
    out = []
    for part, mod in zip(parts, mods[-len(parts) :], strict=True):
        if len(mod.scale) == 1:
            out.append(F.layer_norm(part, part.shape[-1:], 1 + mod.scale[0, 0], mod.shift[0, 0], eps))
        else:
            out.append(F.layer_norm(part, part.shape[-1:], None, None, eps) * (1 + mod.scale) + mod.shift)
    return torch.cat(out, dim=1) if split else out[0]


def gated_add(x: Tensor, split: int, update: Tensor, mods: tuple[Modulation, Modulation]) -> Tensor:
    """x + gate * update in float32, with the history's gate before `split`."""
    if not split:
        return torch.addcmul(x, update, mods[1].gate)
    history = torch.addcmul(x[:, :split], update[:, :split], mods[0].gate)
    return torch.cat([history, torch.addcmul(x[:, split:], update[:, split:], mods[1].gate)], dim=1)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Turns channel pairs of x [b n h d] by rotations [n d/2] complex."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations[:, None]).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig, amplify_history: bool = False):
        super().__init__()
        dim = config.dim
        self.heads = config.num_attention_heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])
        self.norm_q = nn.RMSNorm(dim, config.eps)
        self.norm_k = nn.RMSNorm(dim, config.eps)
        if amplify_history:
            per_head = config.history_scale_mode == "per_head"
            self.history_key_scale = nn.Parameter(torch.ones(self.heads if per_head else 1))

    def fuse(self) -> None:
        """Joins the three projections into one matrix product; for inference, after loading."""
        parts = [self.to_q, self.to_k, self.to_v]
        self.to_qkv = nn.Linear(1, 1, device="meta")
        for name in ("weight", "bias"):
            joined = torch.cat([getattr(p, name).data for p in parts])
            setattr(self.to_qkv, name, nn.Parameter(joined, requires_grad=False))
        del self.to_q, self.to_k, self.to_v

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if hasattr(self, "to_qkv"):
            return self.to_qkv(x).chunk(3, dim=-1)
        return self.to_q(x), self.to_k(x), self.to_v(x)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def amplify(self, key: Tensor, split: int) -> Tensor:
        if not split or not hasattr(self, "history_key_scale"):
            return key
        gain = (1 + 9 * torch.sigmoid(self.history_key_scale)).view(-1, 1).to(key.dtype)
        return torch.cat([key[:, :split] * gain, key[:, split:]], dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.to_out[0](rearrange(out, "b h n d -> b n (h d)"))

    def forward(self, x: Tensor, rotations: Tensor, split: int) -> Tensor:
        """Self-attention over history and current tokens [b n d]."""
        q, k, v = self.project(x)
        q = rotate(self.split_heads(self.norm_q(q)), rotations)
        k = rotate(self.split_heads(self.norm_k(k)), rotations)
        k = self.amplify(k, split)
        return self.attend(*(rearrange(y, "b n h d -> b h n d") for y in (q, k, self.split_heads(v))))

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.split_heads(self.norm_k(self.to_k(text))), self.split_heads(self.to_v(text))
        return rearrange(k, "b n h d -> b h n d").contiguous(), rearrange(v, "b n h d -> b h n d").contiguous()

    def cross(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Cross-attention of x [b n d] to a prompt's keys and values [b h m d]."""
        q = rearrange(self.split_heads(self.norm_q(self.to_q(x))), "b n h d -> b h n d")
        return self.attend(q, keys, values, bias)


class GELU(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.net = nn.ModuleList([GELU(dim, inner), nn.Identity(), nn.Linear(inner, dim)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.attn1 = Attention(config, config.is_amplify_history)
        self.attn2 = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def modulations(self, history: Tensor, current: Tensor):
        """((attention: history, current), (feed-forward: history, current)) from modulation vectors [b 6 d]."""
        pairs = [(self.scale_shift_table + m.float()).unsqueeze(2).unbind(1) for m in (history, current)]
        return tuple(tuple(Modulation(*p[i : i + 3]) for p in pairs) for i in (0, 3))

    def forward(self, x: Tensor, split: int, modulation, rotations: Tensor, text) -> Tensor:
        dtype = self.ffn.net[2].weight.dtype
        attention, feed = self.modulations(*modulation)
        y = modulated_norm(x, split, attention, self.eps).to(dtype)
        x = gated_add(x, split, self.attn1(y, rotations, split), attention)
        y = self.attn2.cross(self.norm2(x[:, split:]).to(dtype), *text)
        x = torch.cat([x[:, :split], x[:, split:] + y], dim=1) if split else x + y
        y = modulated_norm(x, split, feed, self.eps).to(dtype)
        return gated_add(x, split, self.ffn(y), feed)


class Projection(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, in_dim: int, dim: int, activation):
        super().__init__()
        self.activation = activation
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """[b] -> [b dim]: cosines, then sines. At t = 0: ones, then zeros."""
    frequency = torch.exp(torch.arange(dim // 2, device=t.device, dtype=torch.float32) * (-math.log(1e4) / (dim // 2)))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimeTextEmbedding(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.freq_dim = config.freq_dim
        self.time_embedder = Projection(config.freq_dim, config.dim, F.silu)
        self.time_proj = nn.Linear(config.dim, 6 * config.dim)
        self.text_embedder = Projection(config.text_dim, config.dim, gelu_tanh)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [b] -> embedding [b d], modulation [b 6 d]."""
        embedding = self.time_embedder(sinusoid(t, self.freq_dim)).to(self.time_proj.weight.dtype)
        return embedding, rearrange(self.time_proj(F.silu(embedding)), "b (n d) -> b n d", n=6)


class OutputNorm(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedding.float()[:, None]).unsqueeze(2).unbind(1)
        mod = Modulation(shift, scale, scale)
        return modulated_norm(x, 0, (mod, mod), self.eps)


class HeliosTransformer(nn.Module):
    """Predicts the flow velocity of one chunk. `on_block` is called before every block and may raise to stop."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.on_block = None
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
        pairs = [block.attn2.keys_values(text) for block in self.blocks]
        bias = None
        if padding > 1:
            bias = torch.zeros(1, 1, 1, used + 1, device=self.device, dtype=self.dtype)
            bias[..., -1] = math.log(padding)
        return TextContext([k for k, _ in pairs], [v for _, v in pairs], bias)

    def history_context(self, parts) -> HistoryContext:
        """Tokens and rotations of a `history.Parts`; once per chunk."""
        long, mid, short = (
            rearrange(embed_patches(embed, self.array(x)), "b d t h w -> b (t h w) d").float()
            for embed, x in ((self.patch_long, parts.long), (self.patch_mid, parts.mid), (self.patch_short, parts.short))
        )
        _, ph, pw = self.config.patch_size
        grid = (parts.short.shape[3] // ph, parts.short.shape[4] // pw)
        rotations = rope.history_rotations(parts, *grid, self.config.rope_dim, self.config.rope_theta)
        _, modulation = self.condition_embedder(torch.zeros(1, device=self.device))
        return HistoryContext(
            torch.cat([long, mid, short], dim=1),
            torch.from_numpy(rotations).to(self.device),
            modulation,
            parts.current_index,
        )

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
        tokens = rearrange(tokens, "b d t h w -> b (t h w) d").float()
        rotations = self.rotations(history, grid)
        embedding, modulation = self.condition_embedder(t)
        split, first = 0, modulation
        if history is not None:
            split, first = history.tokens.shape[1], history.modulation
            tokens = torch.cat([history.tokens, tokens], dim=1)
        for i, block in enumerate(self.blocks):
            if self.on_block is not None:
                self.on_block()
            tokens = block(tokens, split, (first, modulation), rotations, (text.keys[i], text.values[i], text.bias))
        out = self.proj_out(self.norm_out(tokens[:, split:], embedding).to(self.dtype))
        pt, ph, pw = self.config.patch_size
        pattern = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        return rearrange(out, pattern, t=grid[0], h=grid[1], pt=pt, ph=ph, pw=pw).float()


def embed_patches(embed: nn.Conv3d, x: Tensor) -> Tensor:
    """A patch embedding; the ends of t, h and w are repeated up to a multiple of the patch. x [b c t h w]."""
    pads = [p for size, k in zip(x.shape[:1:-1], embed.kernel_size[::-1], strict=True) for p in (0, -size % k)]
    if any(pads):
        x = F.pad(x, pads, mode="replicate")
    return embed(x.to(embed.weight.dtype))
