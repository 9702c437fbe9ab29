"""helios-tiny: its VAE, the many-step teacher, and the few-step student."""

from . import run
from .teacher import flow_pair
from .vae import initialise, sample_clip

__all__ = ["flow_pair", "initialise", "run", "sample_clip"]
