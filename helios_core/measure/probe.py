"""How brittle a VAE's latents are: what noise on them does to the picture, and where.

T_j is the squared norm of the decoder's derivative by latent j, in squared units of pixels in [-1, 1]. It is estimated
without building the derivative (Hutchinson): for r of random signs on the pixels, E (J^T r)_j^2 = T_j, for every j at
once. The spread over several r gives the estimate's standard error.

Memory does not grow with the clip: a few pieces of it are looked at, the derivative in tiles of a few latents with a
margin around that is not counted. What a latent does beyond its tile's margin, or more than a latent later, is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..noise import Noise

PIECE = 5  # latents of a piece in time, at most
SENSED = 3  # of which the derivative is taken of so many; the last one only receives
MARGIN = 4  # latents around a tile
CURVE = (0.0, 0.05, 0.1, 0.2, 0.4)  # noise over the latents' spread


class Codec(NamedTuple):
    """A VAE as numpy functions. Frames [b 3 f h w] in [-1, 1], raw latents [b c t h w].

    encode: frames -> mean and log variance, None from a VAE that does not tell. decode: latents -> frames, unclamped.
    pull: latents and draw -> J^T r for each r of draw(shape of the frames). time, space: frames and pixels per latent.
    """

    encode: Callable
    decode: Callable
    pull: Callable
    time: int
    space: int


@dataclass(frozen=True)
class ProbeSettings:
    """probes: random r per tile; weight: lambda of the predicted equilibrium; tile: latents; pieces: per clip.

    ValueError for numbers that measure nothing.
    """

    probes: int = 8
    weight: float = 0.1
    seed: int = 0
    tile: int = 16
    pieces: int = 4
    sensed_pieces: int = 2
    as_video: bool = True

    def __post_init__(self):
        if not 2 <= self.probes <= 200:
            raise ValueError(f"probes {self.probes}: wanted 2 to 200; fewer than 2 have no error to state")
        if self.weight <= 0 or min(self.tile, self.pieces, self.sensed_pieces) < 1:
            raise ValueError("weight must be above 0, and tile, pieces and sensed_pieces at least 1")


@dataclass(frozen=True)
class Findings:
    """Per channel [c]: std of the means, posterior sigma (None if untold), sensitivity T and its standard error.

    psnr, kept: at the noise of CURVE, against the picture and against its clean decoding; sampled: of a posterior
    sample. pixel_rms [h w]: over the first piece, how far noise as large as the spread moves a latent's own pixels,
    were the decoder linear. frame: uint8 [h w 3] that this map belongs to.
    """

    std: np.ndarray
    sigma: np.ndarray | None
    sensitivity: np.ndarray
    error: np.ndarray
    psnr: tuple[float, ...]
    kept: tuple[float, ...]
    sampled: float | None
    pixel_rms: np.ndarray
    frame: np.ndarray
    weight: float

    @property
    def equilibrium(self) -> np.ndarray:
        """Sigma that Variance Expansion (training/ve/terms.py) of this weight would lead to, the decoder kept."""
        return (self.weight / np.maximum(self.sensitivity, 1e-30)) ** 0.25

    @property
    def snr(self) -> np.ndarray | None:
        """Spread of the means over the posterior's noise, decibels."""
        return None if self.sigma is None else 20 * np.log10(self.std / np.maximum(self.sigma, 1e-30))


class ProbeStep(NamedTuple):
    """So many units of the total are done; the last step has the findings."""

    done: int
    total: int
    findings: Findings | None = None


def pieces(clip: np.ndarray, codec: Codec, settings: ProbeSettings) -> list[np.ndarray]:
    """Frames [f h w 3], uint8 or 0 to 1 -> a few pieces [1 3 f' h' w'] in [-1, 1], evenly over it, sizes that fit.

    ValueError for other shapes, pictures below one latent, and NaN or infinity.
    """
    clip = np.asarray(clip)
    if clip.ndim != 4 or clip.shape[3] < 3 or not len(clip):
        raise ValueError(f"images: wanted frames [frames, height, width, 3], got {list(clip.shape)}")
    h, w = (n // codec.space * codec.space for n in clip.shape[1:3])
    if not h or not w:
        raise ValueError(f"images of {clip.shape[2]}x{clip.shape[1]}: the least this VAE takes is {codec.space} a side")
    length = 1 + codec.time * (min(PIECE, 1 + (len(clip) - 1) // codec.time) - 1) if settings.as_video else 1
    count = min(settings.pieces, len(clip) // length)
    top, left = (clip.shape[1] - h) // 2, (clip.shape[2] - w) // 2
    found = []
    for start in np.linspace(0, len(clip) - length, count).round().astype(int):
        part = clip[start : start + length, top : top + h, left : left + w, :3]
        part = part.astype(np.float32) / (255 if clip.dtype == np.uint8 else 1)
        if not np.isfinite(part).all():
            raise ValueError("the images hold NaN or infinity; look at the node or file they come from")
        found.append(np.ascontiguousarray(np.moveaxis(part.clip(0, 1) * 2 - 1, -1, 0))[None])
    return found


def windows(length: int, size: int, margin: int = MARGIN) -> list[tuple[slice, slice]]:
    """Cuts an axis: (what a tile takes, which of that counts); every place counts once. One window where that fits."""
    if length <= size + 2 * margin:
        return [(slice(0, length), slice(0, length))]
    found = []
    for start in range(0, length, size):
        low, high = max(0, start - margin), min(length, start + size + margin)
        found.append((slice(low, high), slice(start - low, min(start + size, length) - low)))
    return found


def tiles(z: np.ndarray, size: int) -> list[tuple]:
    """((rows, counted rows), (columns, counted columns)) of every tile of latents [b c t h w]."""
    return [(rows, columns) for rows in windows(z.shape[3], size) for columns in windows(z.shape[4], size)]


def squares(codec: Codec, z: np.ndarray, settings: ProbeSettings, piece: int) -> Iterator[tuple[tuple, np.ndarray]]:
    """(J^T r)^2 by tile: the rows and columns of latents that it counts for, and values [k c t h w] of k probes."""
    z = z[:, :, :SENSED]
    counted = slice(0, max(1, z.shape[2] - 1))
    for tile, cuts in enumerate(tiles(z, settings.tile)):

        def draw(shape, use=f"probe, tile {tile}"):
            drawn = (Noise(settings.seed).normal(shape, chunk=piece, stage=k, use=use) for k in range(settings.probes))
            return [np.where(r < 0, -1, 1).astype(np.float32) for r in drawn]

        (rows, in_rows), (columns, in_columns) = cuts
        found = np.concatenate(codec.pull(z[:, :, :, rows, columns], draw)) ** 2
        place = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in cuts)
        yield place, found[:, :, counted, in_rows, in_columns]


def measure(codec: Codec, clips: list[np.ndarray], settings: ProbeSettings = ProbeSettings()) -> Iterator[ProbeStep]:
    """Yields as it goes; the last step has the findings.

    clips: [f h w 3] each, uint8 or 0 to 1, of any sizes. ValueError for what is no picture, before any work.
    """
    frames = [piece for clip in clips for piece in pieces(clip, codec, settings)]
    looks = np.linspace(0, len(frames) - 1, min(settings.sensed_pieces, len(frames))).round().astype(int).tolist()
    posts, errors, sensed, done = [], [], {}, 0
    total = 2 * len(frames) + sum(_count_tiles(frames[i], codec, settings) for i in looks)
    for part in frames:
        posts.append(codec.encode(part))
        yield ProbeStep(done := done + 1, total)
    std, sigma = _moments(posts)
    for piece, part in enumerate(frames):
        errors.append(noise_errors(codec, part, *posts[piece], std, Noise(settings.seed), piece))
        yield ProbeStep(done := done + 1, total)
    for piece in looks:
        for place, found in squares(codec, posts[piece][0], settings, piece):
            sensed.setdefault(piece, []).append((place, found))
            yield ProbeStep(done := done + 1, total)
    yield ProbeStep(total, total, _conclude(codec, frames, (std, sigma), errors, sensed, settings))


def _count_tiles(part: np.ndarray, codec: Codec, settings: ProbeSettings) -> int:
    rows, columns = (len(windows(n // codec.space, settings.tile)) for n in part.shape[3:])
    return rows * columns


def _moments(posts: list[tuple]) -> tuple[np.ndarray, np.ndarray | None]:
    """Per channel: the spread of the means, and the root mean square of the posteriors' sigma."""

    def rows(arrays):
        return np.concatenate([np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in arrays], 1).astype(np.float64)

    std = rows([mean for mean, _ in posts]).std(axis=1)
    told = all(logvar is not None for _, logvar in posts)
    return std, np.sqrt(np.exp(rows([logvar for _, logvar in posts])).mean(axis=1)) if told else None


def noise_errors(codec: Codec, part, mean, logvar, std, noise: Noise, piece: int) -> np.ndarray:
    """Mean squared errors of a piece, pixels in [0, 1]: against the picture and against its clean decoding [n 2].

    Rows: latents with noise of CURVE times their channel's spread, then a posterior's sample (NaN if untold).
    """
    eps = noise.normal(mean.shape, chunk=piece, use="relative noise")
    levels = [level * std.astype(np.float32).reshape(1, -1, 1, 1, 1) for level in CURVE]
    levels += [] if logvar is None else [np.exp(logvar / 2)]
    found, clean = np.full((len(CURVE) + 1, 2), np.nan), None
    for row, level in enumerate(levels):
        out = codec.decode(mean + level * eps).clip(-1, 1)
        clean = out if clean is None else clean
        found[row] = [np.square(out - other, dtype=np.float64).mean() / 4 for other in (part, clean)]
    return found


def _conclude(codec, frames, moments, errors, sensed, settings) -> Findings:
    std, sigma = moments
    sizes = np.array([part.size for part in frames], dtype=float)
    with np.errstate(divide="ignore"):
        decibels = -10 * np.log10(np.einsum("p,pnk->nk", sizes / sizes.sum(), np.array(errors)))
    parts = [found for piece in sensed.values() for _, found in piece]  # each [k c t h w]
    each = sum(x.sum(axis=(2, 3, 4), dtype=np.float64) for x in parts) / sum(x[0, 0].size for x in parts)
    first = min(sensed)
    field = np.zeros((len(std), *(n // codec.space for n in frames[first].shape[3:])))
    for (rows, columns), found in sensed[first]:
        field[:, rows, columns] = found.mean(axis=(0, 2))
    return Findings(
        std=std,
        sigma=sigma,
        sensitivity=each.mean(axis=0),
        error=each.std(axis=0, ddof=1) / settings.probes**0.5,
        psnr=tuple(decibels[:-1, 0]),
        kept=tuple(decibels[:-1, 1]),
        sampled=None if sigma is None else float(decibels[-1, 0]),
        pixel_rms=np.sqrt(np.einsum("c,chw->hw", std**2, field) / (3 * codec.time * codec.space**2)),
        frame=((frames[first][0, :, 0].transpose(1, 2, 0) + 1) * 127.5).round().astype(np.uint8),
        weight=settings.weight,
    )
