"""Which parts of a checkpoint are in memory at one time, and where: decided once, from the free memory there is."""

from __future__ import annotations

from .host_memory import host_free

PARTS = ("transformer", "vae", "text_encoder")
# What a part may share the device with, by offload mode. Streamed blocks leave room for the VAE; the text encoder goes
# once prompts are encoded, in any mode.
KEPT = {"none": ("transformer", "vae"), "blocks": ("transformer",), "sequential": ()}
WARNING = "warning"


def choose(parts) -> str:
    """none, blocks or sequential: what was asked for, or the fastest that fits the free memory."""
    if parts.choices.offload != "auto":
        return parts.choices.offload
    return parts.estimate().choose(parts.backend.free_memory(parts.device))


def report(parts, width: int = 0, height: int = 0) -> list[str]:
    """Lines for people before anything loads: what videos of that size need, and a warning where it does not fit."""
    needs, mode = parts.estimate(width, height), parts.offload_mode
    free = parts.backend.free_memory(parts.device)
    lines = needs.describe(mode, parts.choices.weight_dtype, free).splitlines()
    short = needs.shortage(mode, free, host_free())
    return [*lines, *([f"{WARNING}: {short}"] if short else [])]


def make_room(parts, name: str) -> None:
    """Takes the parts off the device that may not be there together with the one about to come, and tells the host.

    A host that manages memory moves parts away itself, unless the user chose otherwise.
    """
    kept = PARTS if parts.host.manages and parts.choices.offload == "auto" else KEPT[parts.offload_mode]
    parts.evict(*(other for other in PARTS if other != name and other not in kept))
    parts.host.loading(parts.estimate().part(name, parts.offload_mode))


def keep_blocks(parts, network, needs) -> None:
    """Has as many blocks of a streamed transformer stay on the device as fit beside what such videos need. Decided as
    the first comes, and again for larger ones: then fewer stay."""
    parts.host.arrived(network)
    stream = getattr(network, "streamer", None)
    if stream is None or (work := max(needs.work.values())) <= stream.planned.get(network, 0):
        return
    stream.planned[network] = work
    free = parts.backend.free_memory(parts.device)
    if free is not None:
        beside = needs.parts["vae"] if "vae" in parts.loaded.networks else 0  # counted as if it were not there yet
        free += stream.held(network) + beside
    stream.keep(network, needs.stay(free))


def place(parts, name: str):
    """The device of a part: the host's choice, but the CPU for a text encoder (needed once per prompt) that does not
    fit beside what there is and what that works in."""
    chosen = parts.host.place(name, parts.device)
    if name != "text_encoder" or chosen != parts.device:
        return chosen
    free, needs = parts.backend.free_memory(parts.device), parts.estimate()
    if needs.cpu or free is None or needs.parts[name] + max(needs.work.values()) <= free:
        return chosen
    return parts.backend.CPU


def pixels(latent, scale: int) -> tuple[int, int]:
    """Width and height of the frames of latents, or of a history's window, [b c t h w]; scale: pixels to a latent."""
    return latent.shape[-1] * scale, latent.shape[-2] * scale
