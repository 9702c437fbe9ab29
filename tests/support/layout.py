"""The rooms of helios_core in their order."""

from __future__ import annotations

# Each imports only what stands further down. A room is a folder, or a file beside the folders.
ORDER = (
    ("cli",),
    ("commands",),
    ("study",),
    ("nodes",),
    ("training",),
    ("with_control",),
    ("with_loras",),
    ("helios_core",),  # its own __init__, which loads a pipeline
    ("pipeline", "unified", "convert"),
    ("backends", "control"),
    ("lora", "drawn", "generate"),
    ("text", "history", "ul", "devices", "workflow", "steps"),
    ("checkpoint", "join", "decode", "measure", "pyramid"),
    ("config", "noise", "resample", "media"),
    ("disk",),
    ("interrupts", "version"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
