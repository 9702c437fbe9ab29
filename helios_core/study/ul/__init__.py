"""The experiments of Unified Latents, as toys."""
