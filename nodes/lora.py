"""HeliosLora: the model with a LoRA; chain several."""

from __future__ import annotations

from . import engine, host, sockets


class HeliosLora:
    """A LoRA on a model."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Puts a LoRA on the video model: one made for Helios, or for Wan 2.1 14B, whose layers have the same names and "
        "shapes. Chain several for several LoRAs. The model that comes in stays as it is and is shared, so changing "
        "the strength loads nothing again."
    )
    SEARCH_ALIASES = ["helios lora", "load lora", "wan lora", "lora strength"]
    FUNCTION = "apply"
    RETURN_TYPES = (sockets.MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = (
        "The model with the LoRA, for HistoryMemory, DMDPyramidSample or another HeliosLora.",
        "How many layers each LoRA changes, and what of its file fits no layer.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        from ..helios_core.lora import MODES  # not before: ComfyUI waits for every pack's import

        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model of HeliosLoader, or of another HeliosLora."}),
                "lora": (["none", *host.lora_names()], {"default": "none", "tooltip": LORA_TIP}),
                "strength": (
                    "FLOAT",
                    {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05, "tooltip": STRENGTH_TIP},
                ),
            },
            "optional": {
                "mode": (list(MODES), {"default": MODES[0], "advanced": True, "tooltip": MODE_TIP}),
                "companion": (
                    ["none", *host.companion_names()],
                    {"default": "none", "advanced": True, "tooltip": COMPANION_TIP},
                ),
                "blocks": ("STRING", {"default": "", "advanced": True, "tooltip": BLOCKS_TIP}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, lora="none", companion="none", **_):
        """Sizes and dates of the files: files that were written anew are read anew."""
        return [host.file_stamp(host.lora_path(name)) for name in (lora, companion) if name != "none"]

    def apply(self, model, lora, strength, mode="auto", companion="none", blocks=""):
        """(The model with it,); the one given stays as it is."""
        files = [(host.lora_path(lora), strength, blocks)] if lora != "none" else []
        partial = host.lora_path(companion) if companion != "none" else None
        if not files and partial is None:
            return model, "no LoRA"
        return engine.with_loras(model, files, mode=mode, companion=partial)


LORA_TIP = "A safetensors file of ComfyUI's loras folder, in any usual key form; none leaves the model as it is."
STRENGTH_TIP = "How much of it: 1 as trained, 0 nothing, below 0 the opposite."
MODE_TIP = (
    "In ComfyUI, with torch, ComfyUI patches the weights in its own way, and this has no effect. Elsewhere: apply "
    "computes the LoRA beside the weights, which stay shared; it works on quantised and streamed weights and "
    "costs a few percent of speed. merge computes new weights, up to a second model in memory. auto is apply."
)
BLOCKS_TIP = (
    "Strength per block, as a factor of strength: 0-9=0.5, 10-19=0, 20-=1. other: the layers outside of blocks; rest: "
    "all that is not named. Empty: the same everywhere."
)
COMPANION_TIP = (
    "The transformer_partial.pth that the official training writes beside a LoRA: without it such a LoRA is "
    "incomplete. Its weights replace the model's whatever the strength."
)
