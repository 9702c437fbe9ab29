"""Decoding with a diffusion decoder: in blocks of time, in tiles or whole, with the same result.

Noise is keyed by absolute frame and latent, a block continues the convolutions of the one before at every step, and a
tile is cut wide enough that nothing it keeps has seen its edge. A step's tiles are put together where they were
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..noise import batch_noise
from .config import ULConfig
from .logsnr import add_noise, clean, levels, sample

BLOCK_SIZE = 6_000_000  # numbers in the largest activation of a block of frames
COPIES = 16  # activations of the finest level that live at once, as measured (13 to 16)
MAX_STEPS = 20


@dataclass(frozen=True)
class DecodePlan:
    """How to decode.

    steps: evaluations; one gives the mean of all that the latents could show, more of them detail. latent_noise: the
    level of z_0: lower invents more, and forgives more. start: with another decoder's frames at hand, the level that
    these are noised to instead of starting from noise alone; None: noise. tile: latents to a side, 0 for whole frames.
    block: latents at a time, 0 for as many as memory should hold. ValueError for numbers out of range.
    """

    steps: int = 1
    latent_noise: float = 5.0
    start: float | None = None
    tile: int = 0
    block: int = 0

    def __post_init__(self):
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps must be 1 to {MAX_STEPS}, got {self.steps}")
        if not 0 <= self.latent_noise <= 12:
            raise ValueError(f"latent_noise must be 0 (much noise) to 12 (hardly any), got {self.latent_noise:g}")
        if self.tile < 0 or self.block < 0:
            raise ValueError(f"tile and block must be 0 or more latents, got {self.tile} and {self.block}")


class Decoded(NamedTuple):
    """Work done of all of it, and the frames [b 3 f h w] in [-1, 1] that are finished with it, or None."""

    done: int
    total: int
    frames: Any


def check_latents(shape: tuple[int, ...], config: ULConfig) -> None:
    """ValueError unless the latents are of that many channels."""
    if len(shape) != 5 or shape[1] != config.latent_channels or 0 in shape:
        raise ValueError(
            f"wanted latents [batch, {config.latent_channels}, frames, height, width] of {config.space!r}, came "
            f"{list(shape)}; this decoder was trained on another latent space"
        )


def decode(
    model, z: np.ndarray, plan: DecodePlan, *, backend, seed: int = 0, pixels: np.ndarray | None = None, first: int = 0,
    noisy: bool = False,
) -> Iterator[Decoded]:  # fmt: skip
    """One clip's normalised latents [b c t h w], after every step of every block of frames.

    backend: array and finish. pixels: another decoder's frames of them, [b 3 f h w] in [-1, 1]. first: the number of
    the first latent in the whole video, for the noise. noisy: z is a z_0 of that noise already, as the base samples.
    """
    config: ULConfig = model.config
    check_latents(z.shape, config)
    pixels = with_hidden(pixels, z.shape, config)
    shown = pixels is not None and plan.start is not None
    pairs = levels(start_level(plan, config) if shown else config.logsnr_x[0], config.logsnr_x[1], plan.steps)
    run, time = runner(model, plan, z.shape, backend), config.stride[0]
    put = lambda values: backend.array(values, model.like)  # noqa: E731
    block, total = plan.block or block_size(config, z.shape), evaluations(config, z.shape, plan)
    starts = range(0, z.shape[2], block)
    draws = Draws(seed, z.shape, config, first)
    for number, a in enumerate(starts):
        b = min(a + block, z.shape[2])
        z0 = put(z[:, :, a:b])
        z0 = z0 if noisy else add_noise(z0, put(draws.latents(a, b)), plan.latent_noise)
        known = None if pixels is None else put(pixels[:, :, a * time : b * time])
        x = put(draws.frames(a * time, b * time))
        x = add_noise(known, x, pairs[0][0]) if shown else x

        def estimate(x, level, index, z0=z0, known=known):
            v = run(index, x, z0, put(np.full(len(z), level)), put(np.full(len(z), plan.latent_noise)), known)
            return clamp(clean(x, v, level))

        for step in sample(estimate, x, pairs):
            backend.finish(step.x, step.estimate)
            last = step.index + 1 == step.total
            frames = step.estimate[:, :, config.hidden if a == 0 else 0 :] if last else None
            yield Decoded(number * plan.steps + step.index + 1, total, frames)


def start_level(plan: DecodePlan, config: ULConfig) -> float:
    """Where a warm start begins: below the decoder's least level there is only noise. ValueError above its most."""
    low, high = config.logsnr_x
    if plan.start > high:
        raise ValueError(f"start {plan.start:g}: this decoder knows levels up to {high:g}")
    return max(plan.start, low)


def with_hidden(pixels: np.ndarray | None, shape, config: ULConfig) -> np.ndarray | None:
    """Frames as the network sees them: of a causal clip the first one again. ValueError if they do not fit."""
    if pixels is None:
        return None
    b, _, t, h, w = shape
    wanted = (b, 3, config.frames(t), h * config.stride[1], w * config.stride[1])
    if pixels.shape != wanted:
        raise ValueError(f"the frames to start from must be {list(wanted)}, came {list(pixels.shape)}")
    return np.concatenate([pixels[:, :, :1]] * config.hidden + [pixels], axis=2)


def finest(config: ULConfig, shape) -> int:
    """Numbers in the largest activation, per latent frame."""
    b, _, _, h, w = shape
    return b * config.stride[0] * h * w * (config.stride[1] // config.patch) ** 2 * config.decoder_channels[0]


def block_size(config: ULConfig, shape) -> int:
    """Latents at a time that keep the finest activations below BLOCK_SIZE."""
    return max(1, BLOCK_SIZE // finest(config, shape))


def working_memory(config: ULConfig, shape, block: int = 0) -> int:
    """Bytes in which so many latents are computed at a time, in float32; 0: as many as a block has."""
    return COPIES * 4 * finest(config, shape) * min(block or block_size(config, shape), shape[2])


def evaluations(config: ULConfig, shape, plan: DecodePlan) -> int:
    """How often the decoder runs for latents of that shape."""
    return plan.steps * ceil(shape[2] / (plan.block or block_size(config, shape)))


def clamp(x):
    """To [-1, 1], in arithmetic that all arrays have."""
    return abs(x + 1) / 2 - abs(x - 1) / 2


@dataclass(frozen=True)
class Draws:
    """Noise by absolute number, so that it does not depend on what is decoded together."""

    seed: int
    shape: tuple[int, ...]
    config: ULConfig
    first: int = 0

    def latents(self, start: int, stop: int) -> np.ndarray:
        """For latents `start` to `stop` of the clip, [b c t h w]."""
        b, c, _, h, w = self.shape
        return self._draw((b, c, h, w), range(self.first + start, self.first + stop), "ul latent")

    def frames(self, start: int, stop: int) -> np.ndarray:
        """The networks' frames, hidden ones counted."""
        (b, _, _, h, w), (time, space) = self.shape, self.config.stride
        numbers = range(self.first * time + start, self.first * time + stop)
        return self._draw((b, 3, h * space, w * space), numbers, "ul frame")

    def _draw(self, shape, numbers, use: str) -> np.ndarray:
        noise = batch_noise(self.seed, shape[0])
        return np.stack([noise.normal(shape, chunk=number, use=use) for number in numbers], axis=2)


class Region(NamedTuple):
    """Along one axis, in latents: what a tile keeps, and what it must see."""

    keep: slice
    see: slice


def regions(size: int, tile: int, window: int, reach: int) -> list[Region]:
    """Tiles along an axis, of `tile` latents or less, each seeing whole windows and `reach` around them."""
    found = []
    for a in range(0, size, tile):
        b = min(a + tile, size)
        low = max(0, (a - reach) // window * window - reach) // window * window
        high = min(size, -(-(-(-(b + reach) // window) * window + reach) // window) * window)
        found.append(Region(slice(a, b), slice(low, high)))
    return found


def runner(model, plan: DecodePlan, shape, backend) -> Callable:
    """A function of step number, x, z, both levels and pixels to v; it remembers the frames before, per step.

    ValueError for tiles of a decoder that attends to whole frames.
    """
    config, (h, w), space = model.config, shape[3:], model.config.stride[1]
    if not plan.tile:
        grid = [(Region(slice(0, h), slice(0, h)), Region(slice(0, w), slice(0, w)))]
    elif config.window:
        across = regions(w, plan.tile, config.window, config.reach)
        grid = [(y, x) for y in regions(h, plan.tile, config.window, config.reach) for x in across]
    else:
        raise ValueError("tile: this decoder attends to whole frames, so tiles would not be the whole; give 0")
    pasts: dict[tuple, Any] = {}

    def run_tile(index, rows, columns, x, z, level_x, level_z, pixels):
        past = pasts.setdefault((index, rows.keep.start, columns.keep.start), model.past())
        part = (Ellipsis, rows.see, columns.see)
        fine = (Ellipsis, scaled(rows.see, space), scaled(columns.see, space))
        known = None if pixels is None else pixels[fine]
        v = model.decoder(x[fine], z[part], level_x, level_z, known, past)
        inner = [scaled(shifted(r.keep, -r.see.start), space) for r in (rows, columns)]
        return v[(Ellipsis, *inner)]

    def run(index, x, *given):
        if len(grid) == 1:
            return run_tile(index, *grid[0], x, *given)
        whole = x * 0
        for rows, columns in grid:
            place = (Ellipsis, scaled(rows.keep, space), scaled(columns.keep, space))
            whole[place] = run_tile(index, rows, columns, x, *given)
            backend.finish(whole)  # so that a lazy backend lets go of what the tile was made of
        return whole

    return run


def scaled(part: slice, factor: int) -> slice:
    """A part in latents as one in pixels."""
    return slice(part.start * factor, part.stop * factor)


def shifted(part: slice, by: int) -> slice:
    """A part counted from another beginning."""
    return slice(part.start + by, part.stop + by)
