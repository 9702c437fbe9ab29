"""Real photographs without a download: those that scikit-image and scikit-learn bring, or a folder's.

Of every picture the left four fifths are for training and the right fifth is for testing, so that no test crop was
seen, not even in part.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..media import PICTURES
from .crops import Crops, read_pixels, to_frames

BROUGHT = {  # package -> its folder of pictures, and the photographs there
    "skimage": ("data", ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "motorcycle_left")),
    "sklearn": ("datasets/images", ("china", "flower")),
}
TRAINED = 0.8  # of the width


def find_photos(folder: Path | None = None) -> list[Path]:
    """Files of a folder, or of those packages that are installed. ValueError if there are none."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    else:
        found = [path for name in BROUGHT for path in _brought(name)]
    if not found:
        where = folder or "this environment"
        raise ValueError(f"no photographs in {where}; pip install scikit-image scikit-learn, or give --data FOLDER")
    return found


def _brought(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None:
        return []
    below, names = BROUGHT[package]
    folder = Path(spec.origin).parent / below
    return sorted(path for path in folder.glob("*.*") if path.stem in names and path.suffix.lower() in PICTURES)


class TrainingCrops(Crops):
    """What `--data photos` means: crops of the parts for training of those photographs that packages brought."""

    def __init__(self, size: int):
        super().__init__(sorted(find_photos(), key=lambda file: file.stem), size=size)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        return super()._fit(pixels[:, :, : round(TRAINED * pixels.shape[2])])


class Photos:
    """Square crops of one side of every picture, as training/ul takes them. ValueError where none is large enough."""

    def __init__(self, files: list[Path], size: int, *, test: bool = False):
        self.size, self.parts = size, []
        for file in files:
            pixels = read_pixels(file)[0]
            split = round(TRAINED * pixels.shape[1])
            part = pixels[:, split:] if test else pixels[:, :split]
            if min(part.shape[:2]) >= size:
                self.parts.append(part)
        if not self.parts:
            raise ValueError(f"none of the {len(files)} photographs is wide enough for crops of {size} pixels")

    def batch(self, rng: np.random.Generator, count: int):
        """float32 [b 3 1 h w] in [-1, 1]."""
        return to_frames(np.stack([self._draw(rng) for _ in range(count)])[:, None])

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        part = self.parts[int(rng.integers(len(self.parts)))]
        y, x = (int(rng.integers(n - self.size + 1)) for n in part.shape[:2])
        return part[y : y + self.size, x : x + self.size]
