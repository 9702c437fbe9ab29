"""Between the model's latents and pictures: the VAE's space, and quick previews."""

from . import latents, preview
from .latents import denormalise

__all__ = ["denormalise", "latents", "preview"]
