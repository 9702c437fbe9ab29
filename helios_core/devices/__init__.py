"""What computes, what it needs of memory, which networks are there, and who decides that."""

from . import libraries, needs
from .libraries import BACKENDS, INSTALL, choose, installed
from .needs import OFFLOAD, TILING, VAE_DTYPES, Estimate, host_free
from .parts import Choices, Host, Parts
from .residency import PARTS, WARNING, pixels

__all__ = [
    "BACKENDS",
    "Choices",
    "Estimate",
    "Host",
    "INSTALL",
    "OFFLOAD",
    "PARTS",
    "Parts",
    "TILING",
    "VAE_DTYPES",
    "WARNING",
    "choose",
    "host_free",
    "installed",
    "libraries",
    "needs",
    "pixels",
]
