"""Finished chunks, found again by all that made them: on disk, for ComfyUI's cache drops them when it pleases.

A longer video, a run that was stopped, a changed prompt further on, another day: what was sampled or decoded once is
taken from here. It lies where prompts' embeddings do (host.cache_folder), and is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

from . import core, host


def store():
    """The disk.Store of finished chunks, in a workflow's run its journal; None where HELIOS_CACHE says off."""
    if (run := core.workflow.current()) is not None:
        return run.journal
    folder = host.cache_folder()
    return None if folder is None else core.disk.Store(folder / "chunks")


def recall(key: str | None, make: Callable, array: Callable, show: Callable = lambda latents: None):
    """The latents that `make` gives; under the same key they are not made again. array(numpy).

    key: a digest of all that they depend on (generate.chunk_key); None where nobody knows. show: is given latents that
    were not made again.
    """
    kept = store()
    if kept is None or key is None:
        return make()
    found = kept.arrays(key)
    if found is not None and "latent" in found:
        latents = array(found["latent"])
        show(latents)
        return latents
    made = make()
    kept.keep(key, {"latent": made})
    return made
