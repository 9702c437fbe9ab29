"""What the VAE's decoder works in: how many frames a layer takes at once, and the bytes that stand together.

Convolutions remember their last two frames; above that, a block of frames goes through the layers one by one, and is
cut where the next layer would hold too much, so what was cut stays until its parts are through. The estimate follows
that walk (backends/torch/vae.py, flow) in numbers instead of tensors. Traced on a GPU's tensors it is right to a few
per cent at any size, tile and number format.

A convolution's workspace comes on top. cuDNN may want any; torch passes over a way of computing whose workspace cannot
be had, so what it needs is bounded by what is free. Counted is one copy of input and output, in the order of channels
that tensor cores read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from math import ceil
from typing import NamedTuple

from ..config import VAEConfig

LOG = logging.getLogger(__name__)
# Numbers in the largest activation of one block of frames, by kind of device. Larger is faster until memory is short.
BLOCK_SIZE = {"cpu": 6_500_000, "metal": 50_000_000, "mps": 50_000_000, "gpu": 100_000_000}
TILES = (32, 24, 16)  # latents; smaller ones see too little around them
OVERLAP = 8  # of two tiles
PAST = 2  # frames that a convolution over three remembers
NORM = {4: 12, 2: 8}  # bytes per number that a norm makes of its input, which it takes to float32
WINOGRAD = 36 * 4  # products of one filter in space and time (backends/torch/winograd.py)
# What malloc makes of a CPU's tensors; with it, 0.90 to 1.10 of what was measured at five small sizes.
ALLOCATOR = 1.1


def frames_at_once(frames: int, per_frame: int, kind: str, *, pairs: bool = False) -> int:
    """How many of the frames a layer takes at once that holds so many numbers per frame: as even parts as there are.

    kind: of the device. pairs: an even number, at least two.
    """
    most = BLOCK_SIZE.get(kind, BLOCK_SIZE["gpu"]) // per_frame
    if most >= frames:
        return frames
    if pairs:
        return ceil(frames / ceil(frames / max(2, most // 2 * 2)) / 2) * 2
    return ceil(frames / ceil(frames / max(1, most)))


class Layer(NamedTuple):
    """One of the decoder's: kind res, up, conv or head; channels in and out; whether it doubles the frames."""

    kind: str
    i: int
    o: int
    time: bool = False

    @property
    def width(self) -> int:
        """Numbers per pixel of its input that it is cut by; the layers' own `width`."""
        return 2 * self.i * (2 if self.time else 1) if self.kind == "up" else max(self.i, self.o)

    @property
    def past(self) -> int:
        """Channels that its convolutions remember."""
        return {"res": self.i + self.o, "up": self.i * self.time}.get(self.kind, self.i)

    def work(self, t: int, item: int, copies: bool) -> int:
        """Bytes per pixel beside the input of t frames, at most. copies: with those of the convolutions' workspace."""
        i, o, norm = self.i, self.o, NORM[item]
        first = max(norm * i * t * (self.kind != "conv"), item * (1 + copies) * (i * (t + PAST) + o * t))
        if self.kind == "res":
            kept = o * t * (1 if i == o else 2)  # the first convolution's result, the shortcut's
            second = item * (o * (t + PAST) + o * t) * (1 + copies)
            added = item * o * (3 * t + PAST)
            return max(first, item * kept + max(norm * o * t, second, added))
        if self.kind == "up":
            frames = t * (2 if self.time else 1)
            doubled = item * i * (t + PAST + 2 * frames) if self.time else 0
            wide = item * i * frames * ((1 if self.time else 0) + (4 + 2) * (1 + copies))
            return max(doubled, wide)
        return first

    def frames(self, t: int, first: bool) -> int:
        """That come out of t; first: the clip's first frame, which is not doubled, is among them."""
        return (2 * t - first) if self.time else t


def layers(config: VAEConfig) -> Iterator[Layer]:
    """The decoder's, without attention, which is small beside what follows it."""
    width = config.decoder_base_dim or config.base_dim
    dims = [width * m for m in (config.dim_mult[-1], *config.dim_mult[::-1])]
    yield Layer("conv", config.z_dim, dims[0])
    yield from [Layer("res", dims[0], dims[0])] * 2
    for level, (i, o, time) in enumerate(zip(dims, dims[1:], (*config.temperal_downsample[::-1], None))):
        yield Layer("res", i // 2 if level else i, o)
        yield from [Layer("res", o, o)] * config.num_res_blocks
        if time is not None:
            yield Layer("up", o, o // 2, time)
    yield Layer("head", dims[-1], config.out_channels)


@cache
def decode_work(
    config: VAEConfig, shape: tuple[int, int, int, int], item: int, kind: str = "cuda", copies: bool = False
) -> int:
    """Bytes that decoding latents [b t h w] whole takes beside the weights, at most.

    item: bytes of a number; kind: of the device; copies: with what convolutions copy.
    """
    found, (b, frames, h, w) = list(layers(config)), shape

    def walk(index: int, t: int, pixels: int, channels: int, held: int, first: bool) -> int:
        """The highest from a layer on, for t frames; held: the inputs that were cut before."""
        highest = 0
        for n in range(index, len(found)):
            layer, x = found[n], channels * t * pixels * item
            size = frames_at_once(t, pixels * layer.width, kind, pairs=kind == "cpu")
            if size < t:
                parts = [(min(size, t - at), first and not at) for at in range(0, t, size)]
                return max(highest, *(walk(n, part, pixels, channels, held + x, begins) for part, begins in parts))
            highest = max(highest, held + x + layer.work(t, item, copies) * pixels)
            t, pixels, channels = layer.frames(t, first), pixels * (4 if layer.kind == "up" else 1), layer.o
        return highest

    highest = walk(0, frames, b * h * w, config.z_dim, 0, True) + _past(found, b * h * w) * item
    return highest if kind != "cpu" else int(ALLOCATOR * (highest + _filters(found, item)))


def _filters(found: list[Layer], item: int) -> int:
    """The largest layer's filters as Winograd's products take them, which the CPU multiplies float32 by."""
    return 4 * WINOGRAD * max(layer.i * layer.o for layer in found if layer.kind == "res") if item == 4 else 0


def _past(found: list[Layer], pixels: int) -> int:
    """Numbers that the convolutions remember."""
    total = 0
    for layer in found:
        total += PAST * layer.past * pixels
        pixels *= 4 if layer.kind == "up" else 1
    return total


def tiled_work(config: VAEConfig, shape: tuple[int, int, int, int], item: int, tile: int, **options) -> int:
    """The same in tiles of so many latents: one tile at a time, beside the pictures that are done."""
    b, t, h, w = shape
    frames = (t - 1) * config.scale_factor_temporal + 1
    picture = b * config.out_channels * frames * config.scale_factor_spatial**2 * item  # bytes per latent
    step, highest, done, above = tile - OVERLAP, 0, 0, 0
    for top in range(0, h, step):
        row = 0
        for left in range(0, w, step):
            size = min(tile, h - top), min(tile, w - left)
            row += size[0] * size[1] * picture
            highest = max(highest, decode_work(config, (b, t, *size), item, **options) + done + above + row)
        done, above = done + min(step, h - top) * w * picture, row
    return max(highest, 2 * done)


def choose_tile(config: VAEConfig, shape: tuple, item: int, kind: str, free: int | None) -> int | None:
    """Latents per side of the tiles to decode latents [b c t h w] in; None where the whole frame fits."""
    if free is None or decode_work(config, _plane(shape), item, kind, copies=kind != "cpu") <= free:
        return None
    return smaller_tile(config, shape, item, kind, free, None) or TILES[-1]


def smaller_tile(
    config: VAEConfig, shape: tuple, item: int, kind: str, free: int | None, tile: int | None
) -> int | None:
    """The largest of the smaller tiles that fits, else the smallest; None where there is no smaller one."""
    tiles = [t for t in TILES if tile is None or t < tile]
    how = {"kind": kind, "copies": kind != "cpu"}
    fits = (t for t in tiles if free is None or tiled_work(config, _plane(shape), item, t, **how) <= free)
    return next(fits, tiles[-1] if tiles else None)


def _plane(shape: tuple) -> tuple[int, int, int, int]:
    b, _, t, h, w = shape
    return b, t, h, w


def find_tile(config: VAEConfig, tiling: str, shape: tuple, item: int, kind: str, free: int | None) -> int | None:
    """The tile to begin with for a tiling of auto, on or off; says so where memory decides for tiles."""
    if tiling != "auto":
        return TILES[0] if tiling == "on" else None
    tile = choose_tile(config, shape, item, kind, free)
    if tile is not None:
        LOG.warning("%.1f GiB are free: the VAE decodes in tiles, whose colours may differ a little", free / 2**30)
    return tile


def check_frames(finite: bool) -> None:
    """ValueError for decoded frames that hold NaN; else they would become noise or black without a word."""
    if not finite:
        raise ValueError(
            "the decoded frames hold NaN or infinity: check that the VAE's file is whole and of this model, and try "
            "VAE dtype fp32"
        )


def decode_or_tile(decode: Callable, tile: int | None, smaller: Callable, ran_out: Callable) -> Iterator:
    """Blocks of frames [b c t h w] of decode(tile); where memory runs out, once more in smaller tiles.

    decode(tile): an iterator of blocks, in tiles one block of all frames. smaller(tile): the tile to try then.
    ran_out(error): whether a RuntimeError says that memory ran out. Frames handed out before stay as they are.
    """
    done, blocks = 0, decode(tile)
    while True:
        try:
            block = next(blocks, None)
        except RuntimeError as error:
            if tile == TILES[-1] or not ran_out(error):
                raise
            blocks = None  # and the error goes as this clause ends, and with it the memory that its frames hold
        if blocks is None:
            tile = smaller(tile)
            LOG.warning("memory ran out: the VAE decodes once more in tiles of %d, whose colours may differ", tile)
            blocks = (rest for block in decode(tile) if (rest := block[:, :, done:]).shape[2])
        elif block is None:
            return
        else:
            done += block.shape[2]
            yield block
