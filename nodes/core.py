"""The rooms of helios_core by name, each imported when it is first used: ComfyUI waits for every pack's import."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec


def __getattr__(room: str):
    """Others probe modules: pickle asks all of them for any name, and a compiler pickles."""
    name = f"..helios_core.{room}"
    if room.startswith("_") or find_spec(name, __package__) is None:
        raise AttributeError(room)
    return import_module(name, __package__)
