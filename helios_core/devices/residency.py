"""Which components of a pipeline are in memory at one time, and where: decided once, from the free memory there is."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from . import needs as memory

PARTS = ("transformer", "vae", "text_encoder")
# What a component may share the device with, by offload mode. Streamed blocks leave room for the VAE.
KEPT = {"none": PARTS, "blocks": ("transformer",), "sequential": ()}
WARNING = "warning"


def estimate(helios, width: int = 0, height: int = 0) -> memory.Estimate:
    """Needs of videos of width x height pixels; 0 is the checkpoint's own."""
    defaults = helios.config.defaults
    return memory.estimate(
        helios.sources,
        helios.config,
        width=width or defaults.width,
        height=height or defaults.height,
        weight_dtype=helios.weight_dtype,
        vae_dtype=helios.vae_dtype,
        vae_tiling=helios.vae_tiling,
        device=helios.backend.kind(helios.device),
        backend=helios.backend_name,
    )


def choose(helios) -> str:
    """none, blocks or sequential: what was asked for, or the first of these that fits the free memory."""
    if helios.offload != "auto":
        return helios.offload
    return estimate(helios).choose(helios.backend.free_memory(helios.device))


def report(helios, width: int = 0, height: int = 0) -> list[str]:
    """Lines for people before anything loads: what is needed, and a warning where it does not fit."""
    needs, mode = estimate(helios, width, height), helios.offload_mode
    lines = needs.describe(mode, helios.weight_dtype).splitlines()
    short = needs.shortage(mode, helios.backend.free_memory(helios.device), memory.host_free())
    return [*lines, *([f"{WARNING}: {short}"] if short else [])]


def make_room(helios, name: str) -> None:
    """Lets go of the components that may not be there together with the one about to load, and tells the host.

    A host that manages memory moves components away itself, unless the user chose otherwise.
    """
    managed = helios.on_use is not None and helios.offload == "auto"
    kept = PARTS if managed else KEPT[helios.offload_mode]
    helios.release(*(other for other in PARTS if other != name and other not in kept))
    if helios.on_load is not None:
        helios.on_load(estimate(helios).part(name, helios.offload_mode))


def text_device(helios):
    """Where the text encoder runs: on the device if it fits there, else on the CPU; it is needed once per prompt."""
    if "text_encoder" in helios.places:
        return helios.places["text_encoder"]
    free = helios.backend.free_memory(helios.device)
    needs = estimate(helios)
    if needs.cpu or free is None or needs.parts["text_encoder"] + needs.work["text_encoder"] <= free:
        return helios.device
    return helios.backend.CPU


def pixels(helios, latent) -> tuple[int, int]:
    """Width and height of the frames of latents, or of a history, [b c t h w]."""
    scale = helios.config.vae.scale_factor_spatial
    return latent.shape[-1] * scale, latent.shape[-2] * scale


def watched(helios, component):
    """A component just loaded, whose layers ask before they compute whether the user wants to stop."""
    helios.backend.watch(component, weakly(helios._on_block))
    return component


def weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Calls a method as long as its object is there, and does not keep it there."""
    held = weakref.WeakMethod(method)

    def call() -> None:
        if (found := held()) is not None:
            found()

    return call
