"""The Wan 2.1 VAE in torch: encode and decode, whole, in blocks of frames, or in tiles.

Parameter names and shapes are those of diffusers' AutoencoderKLWan, so checkpoints load with no key map.
Latents here are raw VAE space; normalisation by latents_mean and latents_std is the pipeline's.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...devices import BLOCK_SIZE as BLOCK_SIZE
from ...devices import frames_at_once
from ..vae_shapes import check_config, check_frames, check_latents, pair
from .transfer import send
from .vae_blocks import AttentionBlock, CausalConv3d, Downsample, Head, MidBlock, ResidualBlock, RMSNorm, UpBlock
from .vae_conv import Stream


class Encoder3d(nn.Module):
    """From frames to the moments of latents, before quant_conv."""

    def __init__(self, c):
        super().__init__()
        dims = [c.base_dim * m for m in (1, *c.dim_mult)]
        self.conv_in = CausalConv3d(c.in_channels, dims[0], 3)
        self.down_blocks = nn.ModuleList()
        for level, (i, o) in enumerate(zip(dims, dims[1:])):
            for block in range(c.num_res_blocks):
                self.down_blocks.append(ResidualBlock(o if block else i, o))
                if 0.5**level in c.attn_scales:
                    self.down_blocks.append(AttentionBlock(o))
            if level < len(c.temperal_downsample):
                self.down_blocks.append(Downsample(o, c.temperal_downsample[level]))
        self.mid_block = MidBlock(dims[-1])
        self.norm_out = RMSNorm(dims[-1])
        self.conv_out = CausalConv3d(dims[-1], 2 * c.z_dim, 3)

    def layers(self) -> list:
        """In order, each of (x, stream)."""
        return [self.conv_in, *self.down_blocks, *self.mid_block.layers(), Head(self.norm_out, self.conv_out)]


class Decoder3d(nn.Module):
    """From latents, after post_quant_conv, to frames."""

    def __init__(self, c):
        super().__init__()
        width = c.base_dim if c.decoder_base_dim is None else c.decoder_base_dim
        dims = [width * m for m in (c.dim_mult[-1], *c.dim_mult[::-1])]
        times = [*c.temperal_downsample[::-1], None]
        self.conv_in = CausalConv3d(c.z_dim, dims[0], 3)
        self.mid_block = MidBlock(dims[0])
        self.up_blocks = nn.ModuleList(
            UpBlock(i // 2 if level else i, o, c.num_res_blocks + 1, time)
            for level, (i, o, time) in enumerate(zip(dims, dims[1:], times))
        )
        self.norm_out = RMSNorm(dims[-1])
        self.conv_out = CausalConv3d(dims[-1], c.out_channels, 3)

    def layers(self) -> list:
        """In order, each of (x, stream)."""
        up = [layer for block in self.up_blocks for layer in block.layers()]
        return [self.conv_in, *self.mid_block.layers(), *up, Head(self.norm_out, self.conv_out)]


def flow(x: Tensor, layers: list, stream: Stream) -> Iterator[Tensor]:
    """x [b c t h w] through the layers, depth first: cut in time wherever the next layer would hold too much.

    Between two cuts nothing is held but the layer's input.
    """
    for index, layer in enumerate(layers):
        size = block(x, layer.width)
        if size < x.shape[2]:
            for part in x.split(size, dim=2):
                yield from flow(part, layers[index:], stream)
            return
        x = layer(x, stream)
        if not x.shape[2]:
            return
    yield x


def block(x: Tensor, width: int) -> int:
    """How many frames of x [b c t h w] a layer of that width takes at once; all of them while training."""
    b, _, t, h, w = x.shape
    if torch.is_grad_enabled():
        return t
    # In pairs on the CPU, whose kernels take frames so.
    return frames_at_once(t, b * h * w * width, x.device.type, pairs=x.device.type == "cpu")


class WanVAE(nn.Module):
    """Wan 2.1 VAE of `config` (the attributes of AutoencoderKLWan's config.json).

    `factor` is the ratio of frames and pixels to latents, (4, 8) as published: 1 + 4n frames of
    8h x 8w pixels <-> 1 + n latents of h x w. ValueError for a Wan 2.2 or a patched config.
    together: if there are other processes, what decodes with them, as `stream`; it gives None where they cannot.
    """

    def __init__(self, config):
        super().__init__()
        check_config(config)
        self.config, self.tiling, self.together = config, "off", None
        self.factor = (2 ** sum(config.temperal_downsample), 2 ** len(config.temperal_downsample))
        self.encoder = Encoder3d(config)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder3d(config)

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return self.post_quant_conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.post_quant_conv.weight.device

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [b, 3, 1 + 4n, 8h, 8w] in [-1, 1] -> mean, logvar, each [b, 16, 1 + n, h, w], raw."""
        check_frames(x, self.config.in_channels, self.factor)
        layers = [*self.encoder.layers(), self.quant_conv]
        mean, logvar = torch.cat([*flow(x, layers, Stream())], dim=2).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, clamp: bool = True) -> Tensor:
        """Raw latents [b, 16, 1 + n, h, w] -> frames [b, 3, 1 + 4n, 8h, 8w].

        clamp: to [-1, 1], as diffusers does; training turns it off, for it has no gradient outside.
        """
        check_latents(z, self.config.z_dim)
        x = torch.cat([*flow(z, self.decode_layers(), Stream())], dim=2)
        return x.clamp(-1.0, 1.0) if clamp else x

    def decode_layers(self) -> list:
        """All of decoding in order, each of (x, stream)."""
        return [self.post_quant_conv, *self.decoder.layers()]

    @torch.no_grad()
    def stream(self, z: Tensor, latents_per_step: int | None = None) -> Iterator[Tensor]:
        """`decode` in blocks of frames [b, 3, t, 8h, 8w] as they are done; a caller may stop between two.

        latents_per_step: makes blocks of 4 frames for each (the clip's first latent is one frame);
        None: blocks as memory allows. Raw latents in; all memory is the generator's own.
        """
        check_latents(z, self.config.z_dim)
        if self.together is not None and (blocks := self.together(z)) is not None:
            yield from blocks
            return
        stream, layers = Stream(), self.decode_layers()
        for part in z.split(latents_per_step or z.shape[2], dim=2):
            blocks = flow(part, layers, stream)
            for block in blocks if latents_per_step is None else [torch.cat([*blocks], dim=2)]:
                yield block.clamp(-1.0, 1.0)

    @torch.no_grad()
    def decode_tiled(self, z: Tensor, tile: int | tuple[int, int] = 32, overlap: int | tuple[int, int] = 8) -> Tensor:
        """`decode` in tiles of `tile` latents (one number, or height and width), which overlap and are cross-faded.

        As diffusers' tiled_decode does it, to rounding. Not equal to `decode`: the middle of the decoder attends to the
        whole frame, and a pixel depends on latents about 14 away, so tiles differ from it also far inside. ValueError
        for an overlap that is no smaller than the tile.
        """
        check_latents(z, self.config.z_dim)
        (th, tw), (oh, ow) = pair(tile), pair(overlap)
        if not (0 <= oh < th and 0 <= ow < tw):
            raise ValueError(f"wanted an overlap from 0 to under the tile; came {oh}x{ow}, tile {th}x{tw}: lower it")
        scale, (h, w) = self.factor[1], z.shape[3:]
        above, rows = [], []
        for top in range(0, h, th - oh):
            tiles = []
            for left in range(0, w, tw - ow):
                x = self.decode(z[..., top : top + th, left : left + tw], clamp=False)
                if above:
                    cross_fade(above[len(tiles)], x, oh * scale, -2)
                if tiles:
                    cross_fade(tiles[-1], x, ow * scale, -1)
                tiles.append(x)
            above = tiles
            rows.append(torch.cat([x[..., : (th - oh) * scale, : (tw - ow) * scale] for x in tiles], dim=-1))
        return torch.cat(rows, dim=-2).clamp_(-1.0, 1.0)


def cross_fade(a: Tensor, b: Tensor, extent: int, dim: int) -> None:
    """Fades the end of a into the beginning of b, in b, over `extent` pixels along `dim`."""
    extent = min(extent, a.shape[dim], b.shape[dim])
    if extent:
        ramp = send(torch.arange(extent) / extent, b.device).to(b.dtype).view(-1, *[1] * (-1 - dim))
        head = b.narrow(dim, 0, extent)
        head.copy_(torch.lerp(a.narrow(dim, a.shape[dim] - extent, extent), head, ramp))
