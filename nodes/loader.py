"""HeliosLoader: a checkpoint into model, text encoder and VAE."""

from __future__ import annotations

from ..helios_core import load
from . import core, engine, host, managed, sockets
from .text_socket import TextSocket


class HeliosLoader:
    """A checkpoint: model, text encoder and VAE."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Loads a Helios checkpoint: the video model, its text encoder and its VAE. helios-tiny ships with the pack "
        "and runs on any machine; the 14B checkpoints are folders in models/helios, in their published layout, or "
        "files in diffusion_models with a VAE and a text encoder chosen beside them."
    )
    SEARCH_ALIASES = ["load helios", "helios model", "helios checkpoint"]
    FUNCTION = "load"
    RETURN_TYPES = (sockets.MODEL, sockets.TEXT_ENCODER, "VAE")
    RETURN_NAMES = ("model", "text_encoder", "vae")
    OUTPUT_TOOLTIPS = (
        "The video model, for HistoryMemory and DMDPyramidSample.",
        "The text encoder, for T5Encode or ComfyUI's own CLIP Text Encode.",
        "The Wan VAE, for ChunkConcat and ComfyUI's own VAE Decode and VAE Encode.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "model": (host.model_names(), {"default": "helios-tiny", "tooltip": MODEL_TIP}),
            },
            "optional": {
                "text_encoder": ([host.FROM_MODEL, *host.file_names("text_encoders")], {"tooltip": TEXT_ENCODER_TIP}),
                "vae": ([host.FROM_MODEL, *host.file_names("vae")], {"tooltip": VAE_TIP}),
                "backend": (list(core.devices.BACKENDS), {"tooltip": BACKEND_TIP}),
                "weight_dtype": (list(core.checkpoint.WEIGHT_DTYPES), {"tooltip": DTYPE_TIP}),
                "offload": (list(core.devices.OFFLOAD), {"tooltip": OFFLOAD_TIP}),
                "vae_dtype": (list(core.devices.VAE_DTYPES), {"tooltip": VAE_DTYPE_TIP}),
                "vae_tiling": (list(core.devices.TILING), {"tooltip": TILING_TIP}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, model, text_encoder=host.FROM_MODEL, vae=host.FROM_MODEL, **_):
        """Sizes and dates of the files: files that were written anew are read anew."""
        return host.fingerprint(model, text_encoder, vae)

    def load(self, model, text_encoder=host.FROM_MODEL, vae=host.FROM_MODEL, backend="auto", **memory):
        """(Model, text encoder, VAE); their weights load when they are first used."""
        parts = {"text_encoder": host.part_path("text_encoders", text_encoder), "vae": host.part_path("vae", vae)}
        around = managed.host_of(backend)
        given = {"backend": backend, "host": around, "cache_folder": host.cache_folder()}
        given["weights_folder"] = given["cache_folder"]
        helios = load(host.model_path(model), **parts, **given, **memory)
        managed.announce(helios)
        model, vae = engine.sockets_of(helios)
        return model, TextSocket(helios.text), vae


MODEL_TIP = (
    "helios-tiny, a folder in models/helios that holds model_index.json, transformer/, vae/ and so on, or a file of "
    "diffusion_models. A file that does not say whether it is Base, Mid or Distilled is taken for what its name says, "
    "else for Distilled."
)
TEXT_ENCODER_TIP = (
    "from model: the checkpoint's own. Or a file of text_encoders, such as umt5_xxl_fp8_e4m3fn_scaled.safetensors; a "
    "model that is a file without a text encoder needs one."
)
VAE_TIP = (
    "from model: the checkpoint's own. Or a file of vae, such as wan_2.1_vae.safetensors; a model that is a file "
    "without a VAE needs one."
)
BACKEND_TIP = (
    "What computes: torch, or MLX on a Mac with Apple silicon (pip install mlx). auto: MLX there if it is installed, "
    "torch elsewhere. The same seed gives the same noise on both."
)
DTYPE_TIP = (
    "Number format of the video model's weights. auto: as stored, but fp32 as bf16 where the GPU is fast at that. fp8, "
    "int8 and int4 quantise as they load, for half or a quarter of bf16's memory; int8 is the closest to bf16, int4 "
    "the farthest."
)
OFFLOAD_TIP = (
    "In ComfyUI, with torch, ComfyUI's own memory management decides, and this has no effect. Elsewhere: none: all "
    "parts stay on the device. blocks: the video model's blocks stream from host memory, for small GPUs. sequential: "
    "one part at a time. auto: the first of these that fits the free memory."
)
VAE_DTYPE_TIP = (
    "Number format of the VAE. bf16 halves the memory that decoding takes, and on a GPU its time. auto: bf16 on CUDA, "
    "fp32 elsewhere."
)
TILING_TIP = "Decode in tiles of 32 latents: less memory, but not quite the same picture. auto: only where it must be."
