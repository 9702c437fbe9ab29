"""What computes, what it needs of memory, and what may be there at one time."""

from . import libraries, needs, residency
from .libraries import BACKENDS, INSTALL, choose, installed
from .needs import OFFLOAD, TILING, VAE_DTYPES, Estimate, host_free
from .residency import pixels, weakly

__all__ = [
    "BACKENDS",
    "Estimate",
    "INSTALL",
    "OFFLOAD",
    "TILING",
    "VAE_DTYPES",
    "choose",
    "host_free",
    "installed",
    "libraries",
    "needs",
    "pixels",
    "residency",
    "weakly",
]
