"""The experiments of Variance Expansion, as toys."""

from .experiment import QUICK, VarianceSizes, study
from .patches import cut_patches

__all__ = ["QUICK", "VarianceSizes", "cut_patches", "study"]
