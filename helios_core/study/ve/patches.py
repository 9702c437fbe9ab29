"""Grey patches of photographs, those of the left four fifths to train on, those of the right fifth to test with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...media import read_picture
from ...training import TRAINED

SIDE = 12
SHORT_SIDE = 256  # pixels; larger pictures are reduced, or a patch would be a plain surface


def read_grey(file: Path) -> np.ndarray:
    """float32 [h w], 0 to 1."""
    picture = Image.fromarray(read_picture(file)).convert("L")
    factor = SHORT_SIDE / min(picture.size)
    if factor < 1:
        picture = picture.resize([round(n * factor) for n in picture.size], Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.float32) / 255


def cut_patches(files: list[Path], count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` training patches and a tenth as many for the test [n SIDE^2], as many of every picture.

    ValueError for a picture too small for either part.
    """
    train, test = [], []
    for number, file in enumerate(files):
        grey = read_grey(file)
        edge = round(TRAINED * grey.shape[1])
        for found, region, wanted in ((train, grey[:, :edge], count), (test, grey[:, edge:], count // 10)):
            if min(region.shape) < SIDE:
                raise ValueError(f"{file} is {grey.shape[1]}x{len(grey)}: too small to be split for training and test")
            rng = np.random.default_rng((number, found is test))
            found.append(draw(region, -(-wanted // len(files)), rng))
    return np.concatenate(train), np.concatenate(test)


def draw(region: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Patches [count SIDE^2] from anywhere in it."""
    corners = [rng.integers(0, n - SIDE + 1, count) for n in region.shape]
    return np.stack([region[y : y + SIDE, x : x + SIDE].ravel() for y, x in zip(*corners)])
