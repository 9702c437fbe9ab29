"""LoRAs of HeliosLora as ComfyUI's patches: the files are read and named by the core, and ComfyUI applies them."""

from __future__ import annotations

import torch
from comfy.weight_adapter import LoRAAdapter

from ..helios_core.lora import check_strength, read_changes, read_companion, read_lora
from ..helios_core.with_loras import Loras


def with_loras(patcher, loras, companion=None):
    """(A clone of a MODEL with LoRAs, what they change as text); loras: (file, strength) pairs.

    companion: the transformer_partial.pth of a training. ValueError for a file that does not fit.
    """
    helios = patcher.model.helios
    config, shapes = helios.config.transformer, helios.backend.shapes(helios.config.transformer)
    files = tuple((read_lora(path, shapes), check_strength(strength)) for path, strength in loras)
    if companion is not None:
        read_companion(companion, config, shapes)
        if patcher.get_attachment(COMPANION) is not None:
            raise ValueError(
                f"two companion files, {patcher.get_attachment(COMPANION)} and {companion}; one is possible"
            )
    changes = read_changes(files, companion, config, shapes)
    clone = patcher.clone()
    if companion is not None:
        clone.set_attachments(COMPANION, companion)
    for layer, pairs in changes.pairs.items():
        for down, up in pairs:
            weights = (torch.from_numpy(up), torch.from_numpy(down), None, None, None, None)
            clone.add_patches({f"diffusion_model.{layer}.weight": LoRAAdapter(set(), weights)})
    for name, edits in changes.edits.items():
        for edit in edits:
            add_edit(clone, f"diffusion_model.{name}", edit)
    for name, gain in changes.gains.items():
        clone.add_object_patch(
            f"diffusion_model.{name}", torch.nn.Parameter(torch.from_numpy(gain), requires_grad=False)
        )
    return clone, Loras(config, files, companion=companion).report


def add_edit(clone, key: str, edit) -> None:
    """A change of a whole parameter (lora/changes.py) as a patch: an addition, or a blend towards other values."""
    value = torch.from_numpy(edit.args[0])
    strength = edit.args[1] if len(edit.args) > 1 else None
    if strength is None:
        clone.add_patches({key: ("diff", (value,))})
    else:
        clone.add_patches({key: ("diff", (value,))}, strength_patch=strength, strength_model=1 - strength)


COMPANION = "helios_companion"
