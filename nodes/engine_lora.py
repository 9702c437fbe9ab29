"""LoRAs of HeliosLora as ComfyUI's patches: the files are read and named by the core, and ComfyUI applies them."""

from __future__ import annotations

import torch
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase

from ..helios_core.lora import Edit, read_changes, read_companion
from ..helios_core.with_loras import Loras, read_files


def with_loras(patcher, loras, companion=None):
    """(A clone of a MODEL with LoRAs, what they change as text); loras: as core's with_loras takes them.

    companion: the transformer_partial.pth of a training. ValueError for a file that does not fit.
    """
    helios = patcher.model.helios
    config, shapes = helios.config.transformer, helios.backend.shapes(helios.config.transformer)
    files = read_files(loras, config, shapes)
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


class EditAdapter(WeightAdapterBase):
    """A change of a whole weight that is no addition (lora/edits.py). weights: its kind, then its values."""

    name = "helios"

    def __init__(self, loaded_keys, weights):
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight, key, strength, strength_model, offset, function, *_, **__):
        """The weight with the change, in its own number format."""
        kind, *values = self.weights
        old = weight.float()
        new = Edit(kind, tuple(values))(old, lambda x, like: x.to(like.device, like.dtype))
        return weight.copy_(old + strength * function(new - old))


def add_edit(clone, key: str, edit: Edit) -> None:
    """A change of a whole parameter as a patch: an addition, a blend towards other values, or else computed by us."""
    values = tuple(torch.from_numpy(x) if hasattr(x, "dtype") else x for x in edit.values)
    if edit.kind == "add":
        clone.add_patches({key: ("diff", values)})
    elif edit.kind == "blend":
        clone.add_patches({key: ("diff", values[:1])}, strength_patch=values[1], strength_model=1 - values[1])
    else:
        clone.add_patches({key: EditAdapter(set(), (edit.kind, *values))})


COMPANION = "helios_companion"
