"""What `--data` names: a folder of images or videos, or pictures that need none."""

from __future__ import annotations

from pathlib import Path

from .drawn import Drawn
from .photos import TrainingCrops
from .ul_data import Crops


def open_data(data: Path, *, size: int, frames: int = 1) -> Crops | Drawn:
    """Crops of that many pixels and frames. ValueError if there is nothing of the kind."""
    if str(data) == "drawn":
        return Drawn(size=size, frames=frames)
    if str(data) != "photos":
        return Crops.below(data, size=size, frames=frames)
    if frames > 1:
        raise ValueError(f"--data photos are still pictures; wanted --frames 1, not {frames}")
    return TrainingCrops(size)
