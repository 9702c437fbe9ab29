"""Helios without ComfyUI: `load(path)` gives a pipeline whose text, sample and decode steps stream their results."""

from __future__ import annotations

from .version import VERSION

__version__ = VERSION


def load(path=None, backend: str = "auto", **options):
    """A `pipeline.Helios` from a checkpoint.

    path: a folder in the published layout; None or "helios-tiny" is the small checkpoint that ships with the pack.
    backend: "auto", "torch" or "mlx". options: see `pipeline.Helios.load`.
    """
    from .pipeline import Helios

    return Helios.load(path, backend=backend, **options)
