"""HeliosLatentRobustness: how much noise the latents of any VAE bear, measured on the user's pictures."""

from __future__ import annotations

from . import live, seeds

MAPS = ("video", "separate pictures")


class HeliosLatentRobustness(seeds.SeededNode):
    """How much noise a VAE's latents bear."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Measures how brittle a VAE's latents are on your pictures: what noise as a sampler leaves it does to the "
        "decoded picture, how sensitive the decoder is per channel and in space, and how much noise the VAE was "
        "trained to bear. Works with any picture or video VAE."
    )
    SEARCH_ALIASES = [
        *("vae robustness", "latent noise", "vae sensitivity", "probe vae", "posterior sigma", "variance expansion"),
        *("decoder jacobian", "vae quality", "psnr"),
    ]
    FUNCTION = "probe"
    RETURN_TYPES = ("STRING", "IMAGE", "IMAGE")
    RETURN_NAMES = ("report", "plots", "heat_map")
    OUTPUT_TOOLTIPS = (
        "The figures as a table, for Preview as Text.",
        "Heat map, PSNR against noise and bars per channel on one sheet, for Preview Image or Save Image.",
        "Where noise on the latents shows most in the first picture, bright, in the picture's size.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        probes = {"default": 8, "min": 2, "max": 200, "tooltip": PROBES_TIP}
        weight = {"default": 0.1, "min": 1e-6, "max": 1e6, "step": 1e-6, "round": False, "tooltip": WEIGHT_TIP}
        return {
            "required": {"vae": ("VAE", {"tooltip": VAE_TIP}), "images": ("IMAGE", {"tooltip": IMAGES_TIP})},
            "optional": {
                "frames": (list(MAPS), {"default": MAPS[0], "tooltip": FRAMES_TIP}),
                "probes": ("INT", probes),
                "weight": ("FLOAT", weight),
                "pieces": ("INT", {"default": 4, "min": 1, "max": 1000, "tooltip": PIECES_TIP}),
                "tile": ("INT", {"default": 16, "min": 4, "max": 1024, "tooltip": TILE_TIP}),
                "seed": seeds.widget("The same seed draws the same noise."),
            },
        }

    def probe(self, vae, images, frames=MAPS[0], probes=8, weight=0.1, pieces=4, tile=16, seed=0):
        """(STRING report, IMAGE of the plots, IMAGE heat map)."""
        from ..helios_core.measure import probe, probe_report
        from .codecs import codec

        settings = probe.ProbeSettings(probes, weight, seed, tile, pieces, as_video=frames == MAPS[0])
        clip = images.float().cpu().numpy()
        bar = None
        for step in probe.measure(codec(vae, clip.shape[2], clip.shape[1]), [clip], settings):
            bar = bar or live.NodeProgress([1] * step.total)
            bar.update(step.done)
        found = step.findings
        return probe_report.table(found), _image(probe_report.picture(found)), _image(probe_report.heat_map(found))


def _image(picture):
    """A Pillow picture as IMAGE."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


VAE_TIP = "The VAE to measure: Helios Loader's, or any of ComfyUI's for pictures or videos."
IMAGES_TIP = "Pictures of the kind you make, or a video's frames. Sizes are cropped to what the VAE takes."
FRAMES_TIP = "Whether the images are one video, which a video VAE encodes with its motion, or pictures of their own."
PROBES_TIP = "Random directions per tile for the decoder's sensitivity: four times as many halve the stated error."
WEIGHT_TIP = "Of the Variance Expansion loss, for the sigma that training with it would lead to; the paper's is 0.1."
PIECES_TIP = "At most so many pieces of a video (up to 5 latents each), or pictures, evenly over all; more take longer."
TILE_TIP = "Latents per side that are differentiated at once, besides a margin. Smaller tiles need less memory."
