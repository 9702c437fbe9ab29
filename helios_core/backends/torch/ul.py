"""Unified Latents' networks (arXiv 2602.17270, 1.10): ResNet encoder, ViT prior, U-ViT decoder, two-stage ViT base.

Frames and latents come and go as [b c t h w]. The networks see `stride` frames per latent: of a causal clip the first
frame that many times (`ULConfig.hidden`). Prior, decoder and base answer v = alpha noise - sigma clean.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from ...ul import ULConfig, ULFile
from .load import build_and_load
from .ul_layers import Conv, Level, Merge, Past, ResBlock, Split, Temporal, ViTBlock, norm


def factors(config: ULConfig, levels: int) -> list[tuple[int, int, int]]:
    """What is merged between levels: squares, and with the last of them a latent's frames."""
    return [(config.stride[0] if i == levels - 2 else 1, 2, 2) for i in range(levels - 1)]


def patches(frames: Tensor, size: int) -> Tensor:
    """Frames [b c t (h i) (w j)] -> [b t h w (i j c)], squares of `size` pixels in one."""
    return rearrange(frames, "b c t (h i) (w j) -> b t h w (i j c)", i=size, j=size)


class ResStage(nn.ModuleList):
    """Residual blocks of one size."""

    def __init__(self, config: ULConfig, dim: int, blocks: int, embedding: int = 0):
        time = config.stride[0] > 1
        super().__init__(ResBlock(dim, embedding, time, config.dropout if embedding else 0.0) for _ in range(blocks))

    def forward(self, x: Tensor, embedding: Tensor | None, past: Past) -> Tensor:
        """x [b t h w d] through the blocks; embedding [b 1 1 1 e] of the levels, or None."""
        for block in self:
            x = block(x, embedding, past)
        return x


class ResNetEncoder(nn.Module):
    """ResNet from frames to latents, half the size per level."""

    def __init__(self, config: ULConfig):
        super().__init__()
        dims, blocks = config.sizes("encoder")
        self.patch = config.patch
        self.conv_in = Conv(3 * config.patch**2, dims[0])
        self.stages = nn.ModuleList(ResStage(config, d, n) for d, n in zip(dims, blocks))
        self.merges = nn.ModuleList(Merge(*p) for p in zip(dims, dims[1:], factors(config, len(dims))))
        self.conv_out = Conv(dims[-1], config.latent_channels)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [b 3 f h w] in [-1, 1] -> the clean z [b c t h w]; nothing is drawn."""
        past = Past()
        x = self.conv_in(patches(frames, self.patch))
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.merges[i - 1](x), None, past)
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
        self.down = nn.ModuleList(ResStage(config, d, n, width) for d, n in zip(dims[:-1], blocks))
        self.merges = nn.ModuleList(Merge(*step) for step in steps)
        self.z_in = Conv(config.latent_channels, width)
        self.z_temporal = Temporal(width) if config.stride[0] > 1 else None
        self.middle = nn.ModuleList(ViTBlock(width, config, width, config.window) for _ in range(blocks[-1]))
        self.splits = nn.ModuleList(Split(o, i, f) for i, o, f in steps)
        self.up = nn.ModuleList(ResStage(config, d, n, width) for d, n in zip(dims[:-1], blocks))
        self.conv_out = Conv(dims[0], pixels)

    def forward(self, x: Tensor, z: Tensor, level_x: Tensor, level_z: Tensor, pixels=None, past=None) -> Tensor:
        """Noisy frames [b 3 f h w] at levels [b], given z [b c t h w] at levels [b] -> v [b 3 f h w].

        pixels: another decoder's frames, if the network was built for them. past: of this clip's frames before.
        """
        past, skips = past or Past(), []
        embedding = self.level_x(level_x) + self.level_z(level_z)
        known, scale, x = self.around(x, level_x, pixels)
        x = self.conv_in(self.enter(x, pixels))
        for stage, merge in zip(self.down, self.merges):
            skips.append(stage(x, embedding, past))
            x = merge(skips[-1])
        z = self.z_in(rearrange(z, "b c t h w -> b t h w c"))
        x = x + (z if self.z_temporal is None else self.z_temporal(z, past))
        for block in self.middle:
            x = block(x, embedding)
        for stage, split in zip(reversed(self.up), reversed(self.splits)):
            x = stage(skips.pop() + split(x), embedding, past)
        size = self.patch
        return known + scale * rearrange(self.conv_out(norm(x)), "b t h w (i j c) -> b c t (h i) (w j)", i=size, j=size)

    def around(self, x: Tensor, level: Tensor, pixels: Tensor | None) -> tuple:
        """v, and the size of its error, as far as another decoder's frames say it; and x as the network is to see it.

        With those frames they are the mean of a Gaussian around them given the noisy ones, and x is what that mean
        adds to them: preconditioning as in EDM (arXiv 2206.00364), with little of the noise where it is all there is.
        """
        if not self.with_pixels:
            return 0.0, 1.0, x
        level = level.float()[:, None, None, None, None]
        alpha, sigma = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        if pixels is None:
            return 0.0, 1.0, alpha * x
        spread = (alpha * self.pixel_error) ** 2 + sigma**2
        more = alpha * self.pixel_error**2 / spread * (x - alpha * pixels)
        return (alpha * x - pixels - more) / sigma, self.pixel_error * spread.rsqrt(), more / self.pixel_error

    def enter(self, x: Tensor, pixels: Tensor | None) -> Tensor:
        """The patches of x, and of the other decoder's frames with a flag that they are there."""
        x = patches(x, self.patch)
        if not self.with_pixels:
            return x
        known = torch.zeros_like(x) if pixels is None else patches(pixels, self.patch)
        flag = torch.full_like(x[..., :1], 0.0 if pixels is None else 1.0)
        return torch.cat([x, known, flag], dim=-1)


class ViT(nn.Module):
    """Prior or base: a transformer over all latents; with a second level, half of the first's blocks around it."""

    def __init__(self, config: ULConfig, dims: tuple[int, ...], blocks: tuple[int, ...]):
        super().__init__()
        counts = [n // 2 for n in blocks[:-1]] + [blocks[-1]]
        make = [[ViTBlock(d, config, dims[-1], None) for _ in range(n)] for d, n in zip(dims, counts)]
        after = [[ViTBlock(d, config, dims[-1], None) for _ in range(n - n // 2)] for d, n in zip(dims[:-1], blocks)]
        self.level = Level(dims[-1])
        self.linear_in = nn.Linear(config.latent_channels, dims[0])
        self.down = nn.ModuleList(map(nn.ModuleList, make))
        self.merges = nn.ModuleList(Merge(i, o, (1, 2, 2)) for i, o in zip(dims, dims[1:]))
        self.splits = nn.ModuleList(Split(o, i, (1, 2, 2)) for i, o in zip(dims, dims[1:]))
        self.up = nn.ModuleList(map(nn.ModuleList, after))
        self.linear_out = nn.Linear(dims[0], config.latent_channels)

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        """Noisy latents [b c t h w] at levels [b] -> v. Height and width must halve once per further level."""
        embedding, skips = self.level(level), []
        x = self.linear_in(rearrange(z, "b c t h w -> b t h w c"))
        for i, blocks in enumerate(self.down):
            x = x if i == 0 else self.merges[i - 1](x)
            for block in blocks:
                x = block(x, embedding)
            skips.append(x)
        for i in reversed(range(len(self.splits))):
            x = skips[i] + self.splits[i](x)
            for block in self.up[i]:
                x = block(x, embedding)
        return rearrange(self.linear_out(norm(x)), "b t h w c -> b c t h w")


class UL(nn.Module):
    """The parts of one model that are there: encoder, prior, decoder, base."""

    def __init__(self, config: ULConfig, parts=("encoder", "prior", "decoder")):
        super().__init__()
        self.config, self.parts = config, tuple(parts)
        for part in parts:
            build = {"encoder": ResNetEncoder, "decoder": UViTDecoder}.get(part)
            self.add_module(part, build(config) if build else ViT(config, *config.sizes(part)))

    @property
    def like(self) -> Tensor:
        """A tensor of the device and type that the networks compute on."""
        return next(self.parameters())

    def past(self) -> Past:
        """The memory of a clip of which nothing was decoded yet."""
        return Past()


def load_ul(file: ULFile, parts: tuple[str, ...], *, device) -> UL:
    """Some of a file's parts, in float32 whatever the file has. ValueError for a part or a tensor that is missing."""
    source = file.narrow(parts)
    return build_and_load(lambda: UL(file.config, parts), source, lambda _: torch.float32, device)
