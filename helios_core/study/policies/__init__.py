"""Which variance, anti-drift and boundary policies earn their place."""

from .report import PARTS, study

__all__ = ["PARTS", "study"]
