"""Which variance, anti-drift and boundary policies earn their place."""

from ..experiment import QUICK, PolicySizes
from .report import PARTS, study

__all__ = ["PARTS", "QUICK", "PolicySizes", "study"]
