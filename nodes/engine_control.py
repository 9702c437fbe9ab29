"""A control on a MODEL of ComfyUI's engine: it travels as an attachment, and its LoRA as patches of a clone."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from . import core
from .engine import CONTROLS, HostParts, pipeline


def with_control(model, adapter, latents, **how) -> tuple:
    """(The model under a control, that control); the one given stays as it is. how: as core's with_control takes it."""
    helios = pipeline(model)
    if helios is model:
        made = core.with_control.with_control(helios, adapter, latents, **how)
        return made, made.controls[-1]
    from .engine_lora import with_loras as patched  # which imports ComfyUI

    kept = WeakKeyDictionary()  # a clone with its LoRA per MODEL, so that its chunks share one

    def adapt(parts, path, strength: float):
        if parts.patcher not in kept:
            kept[parts.patcher] = patched(parts.patcher, [(path, strength)])[0]
        return HostParts(kept[parts.patcher])

    made = core.with_control.with_control(helios, adapter, latents, adapt=adapt, **how)
    clone = model.clone()
    clone.set_attachments(CONTROLS, made.controls)
    return clone, made.controls[-1]
