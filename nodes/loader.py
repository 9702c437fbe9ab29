"""HeliosLoader: a checkpoint into model, text encoder and VAE."""

from __future__ import annotations

from ..helios_core import load
from . import host, sockets


class HeliosLoader:
    CATEGORY = "Helios"
    DESCRIPTION = (
        "Loads a Helios checkpoint: the video model, its text encoder and its VAE. helios-tiny ships with the pack "
        "and runs on any machine; the 14B checkpoints are folders in models/helios, in their published layout."
    )
    SEARCH_ALIASES = ["load helios", "helios model", "helios checkpoint"]
    FUNCTION = "load"
    RETURN_TYPES = (sockets.MODEL, sockets.TEXT_ENCODER, "VAE")
    RETURN_NAMES = ("model", "text_encoder", "vae")
    OUTPUT_TOOLTIPS = (
        "The video model, for HistoryMemory and DMDPyramidSample.",
        "The text encoder, for T5Encode.",
        "The Wan VAE, for ChunkConcat and ComfyUI's own VAE Decode and VAE Encode.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (host.model_names(), {"default": "helios-tiny", "tooltip": MODEL_TIP}),
            },
            "optional": {
                "text_encoder": (["from model"], {"tooltip": "Where the text encoder comes from: the checkpoint."}),
                "vae": (["from model"], {"tooltip": "Where the VAE comes from: the checkpoint."}),
                "backend": (["auto", "torch"], {"tooltip": "What computes. auto takes the best one installed."}),
                "weight_dtype": (["auto", "bf16", "fp16", "fp32"], {"tooltip": DTYPE_TIP}),
                "offload": (["auto", "none"], {"tooltip": OFFLOAD_TIP}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, model, **_):
        return host.fingerprint(model)

    def load(
        self, model, text_encoder="from model", vae="from model", backend="auto", weight_dtype="auto", offload="auto"
    ):
        path = host.model_path(model)
        host.make_room(path)
        helios = load(path, backend=backend, weight_dtype=weight_dtype)
        if (device := host.device()) is not None:
            helios.device = device
        return helios, helios.text, sockets.WanVAE(helios)


MODEL_TIP = "helios-tiny, or a folder in models/helios that holds model_index.json, transformer/, vae/ and so on."
DTYPE_TIP = "Number format of the networks' weights. auto: what suits the device. fp32 takes twice the memory of bf16."
OFFLOAD_TIP = "none keeps every part on the device. auto decides by the memory there is; at present it does the same."
