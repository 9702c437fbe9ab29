"""Variance Expansion: VAEs whose latents bear noise, and the toys of its experiments."""

from . import run, terms, toy

__all__ = ["run", "terms", "toy"]
