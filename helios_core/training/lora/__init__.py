"""A checkpoint learns from captioned clips: low-rank pairs, or all weights of a small one; few steps stay few."""

from . import run
from .adapters import Adapters, attach, detach, find_layers, without
from .learners import PairLearner
from .memory import TrainingNeeds, count
from .options import LoraOptions
from .run import Watch

__all__ = [
    "Adapters",
    "LoraOptions",
    "PairLearner",
    "TrainingNeeds",
    "Watch",
    "attach",
    "count",
    "detach",
    "find_layers",
    "run",
    "without",
]
