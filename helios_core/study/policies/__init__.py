"""Which variance, anti-drift and boundary policies earn their place."""

from ..experiment import QUICK, PolicySizes
from .report import PARTS, conclusion, dots, rows, study

__all__ = ["PARTS", "QUICK", "PolicySizes", "conclusion", "dots", "rows", "study"]
