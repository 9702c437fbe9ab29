"""The layers of Unified Latents' networks. Activations are [b t h w c], so that norms and matrices act on pixels.

Norms are of each pixel's channels, and convolutions look back in time only: what a layer gives depends on nothing but
its neighbourhood and the frames before, so that tiles and chunks are exactly the whole.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..rope import grid_rotations
from .plain import rotate

THETA = 100.0  # of the rotary positions: grids here are small
LOWEST, HIGHEST = 0.05, 4.0  # frequencies that levels of about -10 to 10 are told apart by


class Past:
    """What one clip under way must remember: layer -> its last input frames [b t h w c]. Never shared by two clips."""

    def __init__(self):
        self.frames: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, x: Tensor, keep: int) -> Tensor:
        """x [b t h w c] after the frames remembered for `layer`, or after `keep` zeros; remembers the last `keep`."""
        past = self.frames.get(layer)
        past = x.new_zeros(x.shape[0], keep, *x.shape[2:]) if past is None else past
        x = torch.cat([past, x], dim=1)
        self.frames[layer] = x[:, -keep:].clone()
        return x


def norm(x: Tensor) -> Tensor:
    """Root mean square over the channels, without weights: what follows has its own."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class Conv(nn.Conv2d):
    """3x3 on every frame."""

    def __init__(self, inner: int, outer: int):
        super().__init__(inner, outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [b t h w i] -> [b t h w o]."""
        y = super().forward(rearrange(x, "b t h w c -> (b t) c h w"))
        return rearrange(y, "(b t) c h w -> b t h w c", b=len(x))


class Temporal(nn.Linear):
    """A pixel's frame and the two before it, as one matrix; added to x."""

    def __init__(self, dim: int):
        super().__init__(3 * dim, dim)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """x [b t h w d] -> the same; past: of the frames before."""
        t, long = x.shape[1], past.extend(self, x, 2)
        return x + super().forward(torch.cat([long[:, :t], long[:, 1 : t + 1], x], dim=-1))


class Level(nn.Module):
    """Levels [b] -> embedding [b 1 1 1 d]."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_1 = nn.Linear(64, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, level: Tensor) -> Tensor:
        """Levels, log signal-to-noise [b] -> [b 1 1 1 d]."""
        steps = torch.arange(32, device=level.device, dtype=torch.float32) / 31
        angle = level.float()[:, None] * LOWEST * torch.exp(math.log(HIGHEST / LOWEST) * steps)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))[:, None, None, None]


class ResBlock(nn.Module):
    """Convolutions around a residual; embedding: width of what scales and shifts them, 0 for none."""

    def __init__(self, dim: int, embedding: int, time: bool, dropout: float):
        super().__init__()
        self.modulation = nn.Linear(embedding, 2 * dim) if embedding else None
        self.conv_1 = Conv(dim, dim)
        self.temporal = Temporal(dim) if time else None
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = Conv(dim, dim)

    def forward(self, x: Tensor, embedding: Tensor | None, past: Past) -> Tensor:
        """x [b t h w d] -> the same; embedding [b 1 1 1 e], past: of the frames before."""
        y = norm(x)
        if self.modulation is not None:
            scale, shift = self.modulation(embedding).chunk(2, dim=-1)
            y = y * (1 + scale) + shift
        y = self.conv_1(F.silu(y))
        y = y if self.temporal is None else self.temporal(y, past)
        return x + self.conv_2(self.dropout(F.silu(norm(y))))


class GridAttention(nn.Module):
    """window: None, all of the clip; 0, each frame; n, squares of n to a side in each frame, from its corner on."""

    def __init__(self, dim: int, config, window: int | None):
        super().__init__()
        self.window, self.rope_dim, self.head_dim = window, config.rope_dim, config.head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x [b t h w c] -> the same."""
        if not self.window:
            return self.attend(x if self.window is None else rearrange(x, "b t h w c -> (b t) 1 h w c"), x.shape)
        b, t, h, w, _ = x.shape
        y = F.pad(x, (0, 0, 0, -w % self.window, 0, -h % self.window))
        inside = torch.ones(1, 1, h, w, 1, device=x.device, dtype=torch.bool)
        inside = F.pad(inside, (0, 0, 0, -w % self.window, 0, -h % self.window))
        mask = None if y.shape == x.shape else self.cut(inside.expand(b, t, -1, -1, -1))
        y = self.attend(self.cut(y), None, mask)
        n = self.window
        y = rearrange(y, "(b t y x) 1 i j c -> b t (y i) (x j) c", b=b, t=t, x=-(-w // n), i=n)
        return y[:, :, :h, :w]

    def cut(self, x: Tensor) -> Tensor:
        """[b t h w c] -> windows [(b t y x) 1 i j c]; h and w are whole windows."""
        n = self.window
        return rearrange(x, "b t (y i) (x j) c -> (b t y x) 1 i j c", i=n, j=n)

    def attend(self, x: Tensor, shape=None, mask: Tensor | None = None) -> Tensor:
        """Among all of x [b t h w c], back in `shape`. mask: which of it is there."""
        table = grid_rotations(*x.shape[1:4], self.rope_dim, THETA)
        q, k, v = rearrange(self.qkv(x), "b t h w (n k d) -> n b k (t h w) d", n=3, d=self.head_dim)
        q, k = (turn(y, torch.view_as_real(torch.from_numpy(table)).to(x.device)) for y in (q, k))
        mask = None if mask is None else rearrange(mask, "b t h w 1 -> b 1 1 (t h w)")
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = self.out(rearrange(y, "b k n d -> b n (k d)"))
        return y.view(shape or x.shape)


def turn(x: Tensor, rotations: Tensor) -> Tensor:
    """Queries or keys [b k n d], normalised and rotated."""
    return rotate(norm(x.float()), rotations).to(x.dtype)


class ViTBlock(nn.Module):
    """A transformer block whose branches the embedding scales, shifts and gates; nothing before it is trained."""

    def __init__(self, dim: int, config, embedding: int, window: int | None):
        super().__init__()
        self.modulation = nn.Linear(embedding, 6 * dim)
        self.attention = GridAttention(dim, config, window)
        self.linear_1 = nn.Linear(dim, 4 * dim)
        self.linear_2 = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [b t h w d] -> the same; embedding [b 1 1 1 e]."""
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(embedding).chunk(6, dim=-1)
        x = x + gate * self.dropout(self.attention(norm(x) * (1 + scale) + shift))
        y = F.silu(self.linear_1(norm(x) * (1 + scale_2) + shift_2))
        return x + gate_2 * self.dropout(self.linear_2(y))


class Merge(nn.Linear):
    """Blocks of (t, h, w) pixels become one."""

    def __init__(self, inner: int, outer: int, factors: tuple[int, int, int]):
        super().__init__(inner * math.prod(factors), outer)
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        """x [b t h w i], whole blocks -> [b t/i h/j w/k o]."""
        i, j, k = self.factors
        return super().forward(rearrange(x, "b (t i) (h j) (w k) c -> b t h w (i j k c)", i=i, j=j, k=k))


class Split(nn.Linear):
    """One pixel becomes a block of (t, h, w)."""

    def __init__(self, inner: int, outer: int, factors: tuple[int, int, int]):
        super().__init__(inner, outer * math.prod(factors))
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        """x [b t h w i] -> [b t*i h*j w*k o]."""
        i, j, k = self.factors
        return rearrange(super().forward(x), "b t h w (i j k c) -> b (t i) (h j) (w k) c", i=i, j=j, k=k)
