"""A folder of images or videos as random crops. What cannot be read is named once and passed over."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from ..media import PICTURES, UNREADABLE, VIDEOS, read_frames, read_picture

MOVING = (*VIDEOS, ".gif", ".webp")  # those of one picture are passed over, as short videos are
CACHE = 1_000_000_000  # bytes of decoded files that are kept


class Crops:
    """uint8 [t h w 3] squares of `size` pixels and `frames` frames, from every one of the files."""

    def __init__(self, files: list[Path], *, size: int, frames: int = 1):
        self.files, self.size, self.frames, self.bad = files, size, frames, set()
        self.kept: OrderedDict[Path, np.ndarray] = OrderedDict()

    @classmethod
    def below(cls, root: Path, *, size: int, frames: int = 1) -> Crops:
        """Of every file below a folder; with more than one frame of its videos only. ValueError if there is none."""
        if not root.is_dir():
            raise ValueError(f"--data {root}: not a folder; wanted one of images or videos")
        endings = MOVING if frames > 1 else PICTURES + VIDEOS
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in endings)
        if not files:
            wanted = f"videos of {frames} frames" if frames > 1 else "images or videos"
            raise ValueError(f"--data {root}: holds no {wanted} ({', '.join(endings)})")
        return cls(files, size=size, frames=frames)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One crop, turned left to right every other time. ValueError when no file can be read."""
        first = int(rng.integers(len(self.files)))
        for path in self.files[first:] + self.files[:first]:
            if (pixels := self.read(path)) is not None:
                return self.crop(pixels, rng)
        raise ValueError(f"none of the {len(self.files)} files can be read; the first is {self.files[0]}")

    def batch(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """float32 [b 3 t h w] in [-1, 1]."""
        return to_frames(np.stack([self.draw(rng) for _ in range(count)]))

    def read(self, path: Path) -> np.ndarray | None:
        """A file's pixels [t h w 3], or None."""
        if path in self.bad:
            return None
        if path not in self.kept:
            try:
                self.kept[path] = self._fit(read_pixels(path, moving=self.frames > 1))
            except UNREADABLE as error:
                self.bad.add(path)
                why = error if str(path) in str(error) else f"{path}: {error}"
                print(f"skipped {why}", file=sys.stderr, flush=True)
                return None
            while len(self.kept) > 1 and sum(pixels.nbytes for pixels in self.kept.values()) > CACHE:
                self.kept.popitem(last=False)
        return self.kept[path]

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        """At least a crop's size; ValueError for too few frames."""
        if len(pixels) < self.frames:
            raise ValueError(f"it has {len(pixels)} frames, fewer than the {self.frames} of a crop")
        factor = self.size / min(pixels.shape[1:3])
        if factor <= 1:
            return pixels
        size = tuple(max(self.size, round(n * factor)) for n in pixels.shape[2:0:-1])
        return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.LANCZOS)) for frame in pixels])

    def crop(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop of pixels [t h w 3] at least as large, turned left to right every other time."""
        wanted = (self.frames, self.size, self.size)
        corner = [int(rng.integers(n - m + 1)) for n, m in zip(pixels.shape, wanted)]
        part = pixels[tuple(slice(c, c + m) for c, m in zip(corner, wanted))]
        return part[:, :, ::-1] if rng.random() < 0.5 else part


def read_pixels(path: Path, *, moving: bool = False) -> np.ndarray:
    """uint8 [t h w 3] of a video, of an image; moving: of an animated image all frames. ValueError if unreadable."""
    if moving or path.suffix.lower() in VIDEOS:
        return read_frames(path)
    return read_picture(path)[None]


def to_frames(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [b t h w 3] -> float32 [b 3 t h w] in [-1, 1]."""
    return rearrange(torch.from_numpy(pixels / np.float32(127.5) - 1), "b t h w c -> b c t h w").contiguous()
