"""Unified Latents' encoder and decoder in MLX; the torch twin says more, and also holds what only training needs.

Frames and latents come and go as [b c t h w]; inside they are [b t h w c].
"""

import mlx.core as mx
from einops import rearrange
from mlx import nn
from mlx.utils import tree_flatten

from ...ul import ULConfig, ULFile
from .ul_layers import Conv, Level, Merge, Past, ResBlock, Split, Temporal, ViTBlock, norm
from .weights import load_weights


def factors(config: ULConfig, levels: int) -> list[tuple[int, int, int]]:
    """What is merged between levels: squares, and with the last of them a latent's frames."""
    return [(config.stride[0] if i == levels - 2 else 1, 2, 2) for i in range(levels - 1)]


def patches(frames: mx.array, size: int) -> mx.array:
    """Frames [b c t (h i) (w j)] -> [b t h w (i j c)], squares of `size` pixels in one."""
    return rearrange(frames, "b c t (h i) (w j) -> b t h w (i j c)", i=size, j=size)


def make_stage(config: ULConfig, dim: int, blocks: int, embedding: int = 0) -> list[ResBlock]:
    """Residual blocks of one size."""
    return [ResBlock(dim, embedding, config.stride[0] > 1) for _ in range(blocks)]


def run_stage(blocks: list[ResBlock], x: mx.array, embedding: mx.array | None, past: Past) -> mx.array:
    """x [b t h w d] through the blocks; embedding [b 1 1 1 e] of the levels, or None."""
    for block in blocks:
        x = block(x, embedding, past)
    return x


class ResNetEncoder(nn.Module):
    """ResNet from frames to latents, half the size per level."""

    def __init__(self, config: ULConfig):
        super().__init__()
        dims, blocks = config.sizes("encoder")
        self.patch = config.patch
        self.conv_in = Conv(3 * config.patch**2, dims[0])
        self.stages = [make_stage(config, d, n) for d, n in zip(dims, blocks)]
        self.merges = [Merge(*p) for p in zip(dims, dims[1:], factors(config, len(dims)))]
        self.conv_out = Conv(dims[-1], config.latent_channels)

    def __call__(self, frames: mx.array) -> mx.array:
        """Frames [b 3 f h w] in [-1, 1] -> the clean z [b c t h w]; nothing is drawn."""
        past = Past()
        x = self.conv_in(patches(frames, self.patch))
        for i, stage in enumerate(self.stages):
            x = run_stage(stage, x if i == 0 else self.merges[i - 1](x), None, past)
        return rearrange(self.conv_out(norm(x)), "b t h w c -> b c t h w")


class UViTDecoder(nn.Module):
    """U-ViT with one residual connection per level. z_0 enters where its grid is the network's own."""

    def __init__(self, config: ULConfig):
        super().__init__()
        dims, blocks = config.sizes("decoder")
        width, pixels = dims[-1], 3 * config.patch**2
        steps = list(zip(dims, dims[1:], factors(config, len(dims))))
        self.patch, self.with_pixels, self.pixel_error = config.patch, config.with_pixels, config.pixel_error
        self.level_x, self.level_z = Level(width), Level(width)
        self.conv_in = Conv(2 * pixels + 1 if config.with_pixels else pixels, dims[0])
        self.down = [make_stage(config, d, n, width) for d, n in zip(dims[:-1], blocks)]
        self.merges = [Merge(*step) for step in steps]
        self.z_in = Conv(config.latent_channels, width)
        if config.stride[0] > 1:
            self.z_temporal = Temporal(width)
        self.middle = [ViTBlock(width, config, width, config.window) for _ in range(blocks[-1])]
        self.splits = [Split(o, i, f) for i, o, f in steps]
        self.up = [make_stage(config, d, n, width) for d, n in zip(dims[:-1], blocks)]
        self.conv_out = Conv(dims[0], pixels)

    def __call__(self, x, z, level_x, level_z, pixels=None, past=None) -> mx.array:
        """Noisy frames [b 3 f h w] at levels [b], given z [b c t h w] at levels [b] -> v [b 3 f h w].

        pixels: another decoder's frames, if the network was built for them. past: of this clip's frames before.
        """
        past, skips = past or Past(), []
        embedding = self.level_x(level_x) + self.level_z(level_z)
        known, scale, x = self.around(x, level_x, pixels)
        x = self.conv_in(self.enter(x, pixels))
        for stage, merge in zip(self.down, self.merges):
            skips.append(run_stage(stage, x, embedding, past))
            x = merge(skips[-1])
        z = self.z_in(rearrange(z, "b c t h w -> b t h w c"))
        x = x + (self.z_temporal(z, past) if "z_temporal" in self else z)
        for block in self.middle:
            x = block(x, embedding)
        for stage, split in zip(reversed(self.up), reversed(self.splits)):
            x = run_stage(stage, skips.pop() + split(x), embedding, past)
        size = self.patch
        return known + scale * rearrange(self.conv_out(norm(x)), "b t h w (i j c) -> b c t (h i) (w j)", i=size, j=size)

    def around(self, x: mx.array, level: mx.array, pixels: mx.array | None) -> tuple:
        """v and the size of its error, as far as another decoder's frames say it; x as the network is to see it."""
        if not self.with_pixels:
            return 0.0, 1.0, x
        level = level.astype(mx.float32)[:, None, None, None, None]
        alpha, sigma = mx.sqrt(mx.sigmoid(level)), mx.sqrt(mx.sigmoid(-level))
        if pixels is None:
            return 0.0, 1.0, alpha * x
        spread = (alpha * self.pixel_error) ** 2 + sigma**2
        more = alpha * self.pixel_error**2 / spread * (x - alpha * pixels)
        return (alpha * x - pixels - more) / sigma, self.pixel_error * mx.rsqrt(spread), more / self.pixel_error

    def enter(self, x: mx.array, pixels: mx.array | None) -> mx.array:
        """The patches of x, and of the other decoder's frames with a flag that they are there."""
        x = patches(x, self.patch)
        if not self.with_pixels:
            return x
        known = mx.zeros_like(x) if pixels is None else patches(pixels, self.patch)
        flag = mx.full((*x.shape[:-1], 1), 0.0 if pixels is None else 1.0, x.dtype)
        return mx.concatenate([x, known, flag], axis=-1)


class UL(nn.Module):
    """The parts of one model that are there: encoder, decoder. ValueError for the others, which torch has."""

    def __init__(self, config: ULConfig, parts=("encoder", "decoder")):
        super().__init__()
        self.config, self.parts = config, tuple(parts)
        for part in parts:
            if part not in ("encoder", "decoder"):
                raise ValueError(f"the MLX backend has no {part}; sample with backend torch")
            self[part] = ResNetEncoder(config) if part == "encoder" else UViTDecoder(config)

    @property
    def like(self) -> mx.array:
        """An array of the type that the networks compute in."""
        return tree_flatten(self.parameters())[0][1]

    def past(self) -> Past:
        """The memory of a clip of which nothing was decoded yet."""
        return Past()


def load_ul(file: ULFile, parts: tuple[str, ...], *, device=None) -> UL:
    """Some of a file's parts, in float32 whatever the file has. ValueError for a part or a tensor that is missing."""
    source = file.narrow(parts)
    return load_weights(UL(file.config, parts), source, lambda _: mx.float32)
