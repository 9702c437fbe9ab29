"""ComfyUI's own LoRA loaders on our model: they take every dialect that HeliosLora takes, and say what does not fit."""

from __future__ import annotations

import logging
from functools import cache

LOG = logging.getLogger(__name__)
TEXT = ("lora_te", "text_encoder", "te_", "t5xxl")  # how the keys of text encoders begin


class Keys(dict):
    """ComfyUI's map from what a LoRA's keys begin with to the model's parameters. names: of our network, bare."""

    def __init__(self, found: dict, names: set[str]):
        super().__init__(found)
        self.names = names


@cache
def teach(model_class: type) -> None:
    """Teaches ComfyUI's LoRA loaders the names that Helios' and Wan's layers have in LoRA files. Once."""
    import comfy.lora as lora

    original_keys, original_load = lora.model_lora_keys_unet, lora.load_lora

    def keys(model, key_map=None):
        found = original_keys(model, {} if key_map is None else key_map)
        if not isinstance(model, model_class):
            return found
        from ..helios_core.lora import key_forms

        names = set(model.diffusion_model.state_dict())
        for form, name in key_forms(names).items():
            found.setdefault(form, f"diffusion_model.{name}")
        return Keys(found, names)

    def load_lora(file, to_load, log_missing=True):
        if isinstance(to_load, Keys):
            return original_load(usual(file, to_load.names, log_missing), to_load, False)
        return original_load(file, to_load, log_missing)

    lora.model_lora_keys_unet, lora.load_lora = keys, load_lora


def usual(file: dict, names: set[str], tell: bool) -> dict:
    """A LoRA file's tensors by the keys that ComfyUI knows; tell: says in one line what has none."""
    from ..helios_core.lora import summary, usual_keys

    found = usual_keys(file, names)
    unused = [key for key in file if key not in found and not key.startswith(TEXT)]
    if tell and unused:
        LOG.warning("LoRA: Helios has no layer, or ComfyUI no form, for %s", summary(unused))
    return {found.get(key, key): as_lengths(key, value) for key, value in file.items()}


def as_lengths(key: str, value):
    """A tensor of a LoRA file; lengths of rows, as PEFT writes them, in the shape in which ComfyUI takes them."""
    return value.reshape(-1, 1) if "lora_magnitude_vector" in key else value
