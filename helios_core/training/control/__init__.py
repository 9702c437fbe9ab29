"""Trains control adapters: on drawn tracks, or on a folder of clips and the videos that control them."""

from .adapter import TrainedAdapter, open_frozen
from .drawn import drawn_pairs, encode_whole
from .objective import ControlledClips, ControlObjective
from .run import ControlPlan, clips_of, run, train_adapter

__all__ = [
    "ControlObjective",
    "ControlPlan",
    "ControlledClips",
    "TrainedAdapter",
    "clips_of",
    "drawn_pairs",
    "encode_whole",
    "open_frozen",
    "run",
    "train_adapter",
]
