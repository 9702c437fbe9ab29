"""What computes, what it needs of memory, which networks are there, and who decides that."""

from . import decoding, libraries, needs
from .decoding import BLOCK_SIZE, frames_at_once
from .host_memory import Memory, host_free, read_memory
from .kept_weights import KeptWeights
from .libraries import BACKENDS, INSTALL, choose, installed
from .needs import OFFLOAD, TILING, Estimate
from .parts import Choices, Host, Loaded, Parts
from .reading import bar
from .residency import PARTS, WARNING, pixels
from .ways import ATTENTION, COMPILE, PRODUCTS, VAE_DTYPES

__all__ = [
    "ATTENTION",
    "COMPILE",
    "BACKENDS",
    "BLOCK_SIZE",
    "Choices",
    "Estimate",
    "Host",
    "KeptWeights",
    "Loaded",
    "INSTALL",
    "Memory",
    "OFFLOAD",
    "PARTS",
    "PRODUCTS",
    "Parts",
    "TILING",
    "VAE_DTYPES",
    "WARNING",
    "bar",
    "choose",
    "decoding",
    "frames_at_once",
    "host_free",
    "installed",
    "libraries",
    "needs",
    "pixels",
    "read_memory",
]
