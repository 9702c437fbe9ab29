"""The rooms of helios_core by name, each imported when it is first used: ComfyUI waits for every pack's import."""

from __future__ import annotations

from importlib import import_module


def __getattr__(room: str):
    if room.startswith("_"):
        raise AttributeError(room)
    return import_module(f"..helios_core.{room}", __package__)
