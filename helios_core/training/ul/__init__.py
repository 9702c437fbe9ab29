"""Unified Latents: the codec, the base model, and diffusion decoders of other latents."""

from . import decoder_run, presets, report, run, stages
from .loss import bits, diffuse, rate

__all__ = ["bits", "decoder_run", "diffuse", "presets", "rate", "report", "run", "stages"]
