"""What the model remembers of a video: its window, how it begins, how it is kept from drifting, its file."""

from . import drift, saved, starts
from .directed import toward_picture
from .drift import DriftPolicy, check_window, correct, distances, measure, parse_policy, remember
from .starts import POSTERIORS, SIGMA, check_sigma
from .window import MOMENTS, History, chunk_noise, parse_sizes

__all__ = [
    "DriftPolicy",
    "History",
    "MOMENTS",
    "POSTERIORS",
    "SIGMA",
    "check_sigma",
    "check_window",
    "chunk_noise",
    "correct",
    "distances",
    "drift",
    "measure",
    "parse_policy",
    "parse_sizes",
    "remember",
    "saved",
    "starts",
    "toward_picture",
]
