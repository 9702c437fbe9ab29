"""What tells the patches of a MODEL from others, in this session and in later ones."""

from __future__ import annotations

from . import core

_DIGESTS: dict = {}  # a patcher's patches_uuid -> digest; the last few


def patches_digest(patcher) -> str | None:
    """The same for the same patches, in another session too; None where there are none.

    Objects in the place of others count by their numbers: LoRAs bring gains of norms so (engine_lora.py). What is no
    array counts as itself, which no other session has.
    """
    objects = [(name, plain(value)) for name, value in sorted(patcher.object_patches.items())]
    found = [_weights_digest(patcher), *([core.disk.digest(objects)] if objects else [])]
    return " ".join(filter(None, found)) or None


def _weights_digest(patcher) -> str | None:
    if not patcher.patches and not patcher.weight_wrapper_patches:
        return None
    if patcher.patches_uuid not in _DIGESTS:
        while len(_DIGESTS) >= 8:
            del _DIGESTS[next(iter(_DIGESTS))]
        wrapped = [str(patcher.patches_uuid)] if patcher.weight_wrapper_patches else []  # functions: of this session
        _DIGESTS[patcher.patches_uuid] = core.disk.digest(wrapped, *map(plain, sorted(patcher.patches.items())))
    return _DIGESTS[patcher.patches_uuid]


def named(function) -> tuple:
    """A function by its name and by what it holds: functions by theirs, all else by its text."""
    held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    name = getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
    return *name, *(named(value) if callable(value) else repr(value) for value in held)


def plain(value):
    """A patch as nested tuples of arrays and numbers: the weights of an adapter beside the name of its class."""
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    if hasattr(value, "weights") and hasattr(value, "loaded_keys"):
        return type(value).__name__, plain(value.weights)
    return value
