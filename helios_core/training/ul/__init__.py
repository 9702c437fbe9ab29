"""Unified Latents: the codec, the base model, and diffusion decoders of other latents."""
