"""HistoryMemory: what the model remembers before the first chunk."""

from __future__ import annotations

from ..helios_core.history import parse_sizes
from . import sockets


class HistoryMemory:
    CATEGORY = "Helios"
    DESCRIPTION = (
        "Starts the memory that carries a video from chunk to chunk. With nothing wired in it is empty, for text to "
        "video. Starting from an image, a video or latents is declared here and comes with a later version."
    )
    SEARCH_ALIASES = ["helios history", "helios size", "text to video", "empty latent"]
    FUNCTION = "start"
    RETURN_TYPES = (sockets.HISTORY,)
    RETURN_NAMES = ("history",)
    OUTPUT_TOOLTIPS = ("The memory before the first chunk, for HeliosNoise and DMDPyramidSample.",)

    @classmethod
    def INPUT_TYPES(cls):
        size = {"default": 0, "min": 0, "max": 16384, "step": 16}
        sigma = {"min": 0.0, "max": 1.0, "step": 0.001, "round": 0.001, "advanced": True}
        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model of HeliosLoader."}),
                "width": ("INT", {**size, "tooltip": "Pixels. " + SIZE_TIP}),
                "height": ("INT", {**size, "tooltip": "Pixels. " + SIZE_TIP}),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "First frame, for image to video. " + LATER}),
                "video": ("IMAGE", {"tooltip": "Frames to continue, for video to video. " + LATER}),
                "latent": ("LATENT", {"tooltip": "Latents to continue, in raw VAE space. " + LATER}),
                "vae": ("VAE", {"tooltip": "Encodes image or video. " + LATER}),
                "history_sizes": ("STRING", {"default": "16,2,1", "advanced": True, "tooltip": SIZES_TIP}),
                "keep_first_frame": ("BOOLEAN", {"default": True, "advanced": True, "tooltip": KEEP_TIP}),
                "noise_sigma_min": ("FLOAT", {**sigma, "default": 0.111, "tooltip": "Least " + SIGMA_TIP}),
                "noise_sigma_max": ("FLOAT", {**sigma, "default": 0.135, "tooltip": "Most " + SIGMA_TIP}),
                "seed": ("INT", {"default": 0, "min": 0, "max": sockets.MAX_SEED, "tooltip": SEED_TIP}),
            },
        }

    def start(
        self, model, width, height, image=None, video=None, latent=None, vae=None, history_sizes="16,2,1",
        keep_first_frame=True, noise_sigma_min=0.111, noise_sigma_max=0.135, seed=0,
    ):  # fmt: skip
        wired = [name for name, value in (("image", image), ("video", video), ("latent", latent)) if value is not None]
        if wired:
            raise ValueError(f"HistoryMemory: starting from {wired[0]} is not yet in this version; disconnect {wired}")
        defaults = model.config.defaults
        history = model.history(
            width or defaults.width,
            height or defaults.height,
            sizes=parse_sizes(history_sizes),
            keep_first_frame=keep_first_frame,
        )
        return (sockets.Memory(history, defaults.chunk_latent_frames),)


SIZE_TIP = "0 takes the size the checkpoint was made for. A size that the pyramid cannot halve is refused, not rounded."
SIZES_TIP = "Latent frames remembered, far to near: long, mid and short term. The published checkpoints know 16,2,1."
KEEP_TIP = "Keeps the video's first frame in sight of every chunk, which holds colours and subject together."
SIGMA_TIP = "noise mixed into an image or video to start from; none is needed for text to video."
SEED_TIP = "Seed of that noise. Text to video does not use it."
LATER = "Not yet in this version: leave it open."
