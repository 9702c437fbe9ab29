"""The experiments of Unified Latents, as toys."""

from .experiment import UnifiedSizes, study

__all__ = ["UnifiedSizes", "study"]
