"""Unified Latents without its networks: sizes, files, noise levels, decoding by diffusion."""

from . import logsnr
from .config import ULConfig
from .decode import MAX_STEPS, Decoded, DecodePlan, check_latents, decode, evaluations, working_memory
from .files import KEY, ULFile, describe, open_file
from .logsnr import add_noise

__all__ = [
    "Decoded",
    "MAX_STEPS",
    "DecodePlan",
    "KEY",
    "ULConfig",
    "ULFile",
    "add_noise",
    "check_latents",
    "decode",
    "describe",
    "evaluations",
    "logsnr",
    "open_file",
    "working_memory",
]
