"""Trains control adapters: on drawn tracks, or on a folder of clips and the videos that control them."""

from .adapter import TrainedAdapter
from .drawn import drawn_pairs, encode_whole
from .extract import EXTRACTORS
from .objective import ControlledClips, ControlObjective
from .pairs import OWN, ControlPair, PairEncoder, find_pairs
from .run import ControlPlan, clips_of, is_small, run, train_adapter

__all__ = [
    "ControlObjective",
    "ControlPair",
    "ControlPlan",
    "ControlledClips",
    "EXTRACTORS",
    "OWN",
    "PairEncoder",
    "TrainedAdapter",
    "clips_of",
    "drawn_pairs",
    "encode_whole",
    "find_pairs",
    "is_small",
    "run",
    "train_adapter",
]
