"""The layers of Unified Latents' networks in MLX; what inference needs of the torch twin, under the same names.

Activations are [b t h w c]. Norms are of each pixel's channels, and convolutions look back in time only: what a layer
gives depends on nothing but its neighbourhood and the frames before, so that tiles and chunks are exactly the whole.
"""

import math

import mlx.core as mx
from einops import rearrange
from mlx import nn

from ..rope import grid_rotations
from .layers import rotate, silu
from .vae_conv import Stream as Past
from .vae_conv import conv

THETA = 100.0
LOWEST, HIGHEST = 0.05, 4.0


def norm(x: mx.array) -> mx.array:
    """Root mean square over the channels, without weights: what follows has its own."""
    return mx.fast.rms_norm(x, None, 1e-6)


class Conv(nn.Conv2d):
    """3x3 on every frame."""

    def __init__(self, inner: int, outer: int):
        super().__init__(inner, outer, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        """x [b t h w i] -> [b t h w o]."""
        return conv(x, self.weight[:, None], self.bias)


class Temporal(nn.Linear):
    """A pixel's frame and the two before it, as one matrix; added to x."""

    def __init__(self, dim: int):
        super().__init__(3 * dim, dim)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        """x [b t h w d] -> the same; past: of the frames before."""
        t, long = x.shape[1], past.extend(self, x, 2)
        return x + super().__call__(mx.concatenate([long[:, :t], long[:, 1 : t + 1], x], axis=-1))


class Level(nn.Module):
    """Levels [b] -> embedding [b 1 1 1 d]."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_1 = nn.Linear(64, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def __call__(self, level: mx.array) -> mx.array:
        """Levels, log signal-to-noise [b] -> [b 1 1 1 d]."""
        steps = mx.arange(32, dtype=mx.float32) / 31
        angle = level.astype(mx.float32)[:, None] * LOWEST * mx.exp(math.log(HIGHEST / LOWEST) * steps)
        waves = mx.concatenate([mx.cos(angle), mx.sin(angle)], axis=-1).astype(self.linear_1.weight.dtype)
        return self.linear_2(silu(self.linear_1(waves)))[:, None, None, None]


class ResBlock(nn.Module):
    """Convolutions around a residual; embedding: width of what scales and shifts them, 0 for none."""

    def __init__(self, dim: int, embedding: int, time: bool):
        super().__init__()
        if embedding:
            self.modulation = nn.Linear(embedding, 2 * dim)
        self.conv_1 = Conv(dim, dim)
        if time:
            self.temporal = Temporal(dim)
        self.conv_2 = Conv(dim, dim)

    def __call__(self, x: mx.array, embedding: mx.array | None, past: Past) -> mx.array:
        """x [b t h w d] -> the same; embedding [b 1 1 1 e], past: of the frames before."""
        y = norm(x)
        if "modulation" in self:
            scale, shift = mx.split(self.modulation(embedding), 2, axis=-1)
            y = y * (1 + scale) + shift
        y = self.conv_1(silu(y))
        y = self.temporal(y, past) if "temporal" in self else y
        return x + self.conv_2(silu(norm(y)))


class GridAttention(nn.Module):
    """window: 0, each frame; n, squares of n to a side in each frame, from its corner on."""

    def __init__(self, dim: int, config, window: int):
        super().__init__()
        self.window, self.rope_dim, self.head_dim = window, config.rope_dim, config.head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """x [b t h w c] -> the same."""
        if not self.window:
            return self.attend(rearrange(x, "b t h w c -> (b t) 1 h w c")).reshape(x.shape)
        (b, t, h, w, _), n = x.shape, self.window
        around = [(0, 0), (0, 0), (0, -h % n), (0, -w % n), (0, 0)]
        y = mx.pad(x, around)
        inside = mx.pad(mx.ones((b, t, h, w, 1)), around) > 0
        mask = None if y.shape == x.shape else self.cut(inside)
        y = self.attend(self.cut(y), mask)
        y = rearrange(y, "(b t y x) 1 i j c -> b t (y i) (x j) c", b=b, t=t, x=-(-w // n), i=n)
        return y[:, :, :h, :w]

    def cut(self, x: mx.array) -> mx.array:
        """[b t h w c] -> windows [(b t y x) 1 i j c]; h and w are whole windows."""
        n = self.window
        return rearrange(x, "b t (y i) (x j) c -> (b t y x) 1 i j c", i=n, j=n)

    def attend(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """Among all of x [b t h w c]. mask: which of it is there."""
        table = mx.array(grid_rotations(*x.shape[1:4], self.rope_dim, THETA))
        q, k, v = rearrange(self.qkv(x), "b t h w (n k d) -> n b k (t h w) d", n=3, d=self.head_dim)
        q, k = (rotate(norm(y.astype(mx.float32)), table).astype(x.dtype) for y in (q, k))
        mask = None if mask is None else rearrange(mask, "b t h w 1 -> b 1 1 (t h w)")
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5, mask=mask)
        return self.out(rearrange(y, "b k n d -> b n (k d)")).reshape(x.shape)


class ViTBlock(nn.Module):
    """A transformer block whose branches the embedding scales, shifts and gates."""

    def __init__(self, dim: int, config, embedding: int, window: int):
        super().__init__()
        self.modulation = nn.Linear(embedding, 6 * dim)
        self.attention = GridAttention(dim, config, window)
        self.linear_1 = nn.Linear(dim, 4 * dim)
        self.linear_2 = nn.Linear(4 * dim, dim)

    def __call__(self, x: mx.array, embedding: mx.array) -> mx.array:
        """x [b t h w d] -> the same; embedding [b 1 1 1 e]."""
        scale, shift, gate, scale_2, shift_2, gate_2 = mx.split(self.modulation(embedding), 6, axis=-1)
        x = x + gate * self.attention(norm(x) * (1 + scale) + shift)
        y = silu(self.linear_1(norm(x) * (1 + scale_2) + shift_2))
        return x + gate_2 * self.linear_2(y)


class Merge(nn.Linear):
    """Blocks of (t, h, w) pixels become one."""

    def __init__(self, inner: int, outer: int, factors: tuple[int, int, int]):
        super().__init__(inner * math.prod(factors), outer)
        self.factors = factors

    def __call__(self, x: mx.array) -> mx.array:
        """x [b t h w i], whole blocks -> [b t/i h/j w/k o]."""
        i, j, k = self.factors
        return super().__call__(rearrange(x, "b (t i) (h j) (w k) c -> b t h w (i j k c)", i=i, j=j, k=k))


class Split(nn.Linear):
    """One pixel becomes a block of (t, h, w)."""

    def __init__(self, inner: int, outer: int, factors: tuple[int, int, int]):
        super().__init__(inner, outer * math.prod(factors))
        self.factors = factors

    def __call__(self, x: mx.array) -> mx.array:
        """x [b t h w i] -> [b t*i h*j w*k o]."""
        i, j, k = self.factors
        return rearrange(super().__call__(x), "b t h w (i j k c) -> b (t i) (h j) (w k) c", i=i, j=j, k=k)
