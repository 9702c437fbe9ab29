"""Variance Expansion: VAEs whose latents bear noise."""
