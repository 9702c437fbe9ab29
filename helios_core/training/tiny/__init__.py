"""helios-tiny: its VAE, the many-step teacher, and the few-step student."""

from . import run
from .vae import initialise, sample_clip

__all__ = ["initialise", "run", "sample_clip"]
