"""The study of official issue #116: which variance policy a control adapter is best trained with."""

from .arms import ARMS, QUICK, ControlSizes
from .report import study

__all__ = ["ARMS", "QUICK", "ControlSizes", "study"]
