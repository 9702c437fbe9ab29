"""Finished chunks, found again by all that made them: on disk, for ComfyUI's cache drops them when it pleases.

A longer video, a run that was stopped, a changed prompt further on, another day: what was sampled or decoded once is
taken from here. It lies where prompts' embeddings do (host.cache_folder), and is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

from ..helios_core import __version__
from . import core, host


def store():
    """The store.Store of finished chunks; None where HELIOS_CACHE says off."""
    folder = host.cache_folder()
    return None if folder is None else core.disk.Store(folder / "chunks")


def recall(made_of: tuple, make: Callable, array: Callable):
    """The latents that `make` gives; for the same content of `made_of` they are not made again. array(numpy).

    None in `made_of`'s first place: nobody knows what they depend on.
    """
    kept = store()
    if kept is None or made_of[0] is None:
        return make()
    key = core.disk.digest("latent", __version__, made_of)
    found = kept.arrays(key)
    if found is not None and "latent" in found:
        return array(found["latent"])
    made = make()
    kept.keep(key, {"latent": made})
    return made
