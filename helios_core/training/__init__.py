"""Trainings from nothing or from a checkpoint: the loop, the data, the files; a folder per kind of model."""

from .crops import Crops, to_frames
from .loop import Recipe, fit, join
from .photos import TRAINED, Photos, find_photos

__all__ = ["TRAINED", "Crops", "Photos", "Recipe", "find_photos", "fit", "join", "to_frames"]
