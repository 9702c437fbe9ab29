"""Sizes to train at: of each shape of picture the nearest that the pyramid halves, within so many pixels."""

from __future__ import annotations

import math


def bucket(width: int, height: int, multiple: int, pixels: int) -> tuple[int, int]:
    """(width, height), multiples of `multiple`, of at most `pixels` together, nearest in shape to a picture's.

    Of two as near, the larger. ValueError where not even the smallest fits.
    """
    if pixels < multiple**2:
        raise ValueError(f"--pixels {pixels}: the smallest size of this model is {multiple}x{multiple}")
    sizes = []
    for columns in range(1, pixels // multiple**2 + 1):
        rows = pixels // (columns * multiple**2)
        sizes.append((columns * multiple, rows * multiple))
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (round(abs(math.log(size[0] / size[1]) - wanted), 6), -size[0] * size[1]))
