"""HeliosNoise and PyramidDownsample: a chunk's noise, and how it shrinks down the pyramid."""

from __future__ import annotations

from ..helios_core import pyramid
from . import sockets


class HeliosNoise:
    CATEGORY = "Helios"
    DESCRIPTION = (
        "The white noise that the next chunk starts from, at full resolution: exactly what DMDPyramidSample draws "
        "itself when its latent input is left open. The same seed gives the same noise on every device."
    )
    SEARCH_ALIASES = ["helios noise", "random noise", "initial noise"]
    FUNCTION = "draw"
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("White noise [1, 16, frames, h / 8, w / 8], in the sampler's space: not to be decoded.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "history": (sockets.HISTORY, {"tooltip": "Says how large the chunk is, and which one comes next."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": sockets.MAX_SEED, "tooltip": SEED_TIP}),
            },
        }

    def draw(self, history, seed):
        import torch

        from ..helios_core.noise import batch_noise

        b, c, h, w = history.history.shape
        noise = batch_noise(seed, b).normal((b, c, history.chunk_frames, h, w), chunk=history.history.chunk)
        return ({"samples": torch.from_numpy(noise)},)


class PyramidDownsample:
    CATEGORY = "Helios"
    DESCRIPTION = (
        "Shrinks a latent by exact area means, down the resolution pyramid. White noise loses contrast in a mean, so "
        "the policy says whether to give it back: noise for noise, content for latents of real frames."
    )
    SEARCH_ALIASES = ["helios downsample", "latent downscale", "pyramid", "variance"]
    FUNCTION = "shrink"
    RETURN_TYPES = ("LATENT", "STRING")
    RETURN_NAMES = ("latent", "report")
    OUTPUT_TOOLTIPS = (
        "The smaller latent, in the space it came in.",
        "Size, mean and standard deviation at each level; show it with Preview Any.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "latent": ("LATENT", {"tooltip": "Noise or latents, used as they are: no mean and std are applied."}),
                "factors": ("STRING", {"default": "2,2", "tooltip": FACTORS_TIP}),
                "variance_policy": (list(pyramid.POLICIES), {"default": "noise", "tooltip": POLICY_TIP}),
            },
            "optional": {
                "kernel": (["area"], {"default": "area", "tooltip": "How cells are averaged: area takes equal means."}),
                "reference": ("LATENT", {"tooltip": REFERENCE_TIP}),
            },
        }

    def shrink(self, latent, factors, variance_policy, kernel="area", reference=None):
        if reference is not None:
            raise ValueError(f"PyramidDownsample: policy {variance_policy!r} takes no reference; disconnect it")
        levels, factors = [sockets.samples(latent, "latent")], pyramid.parse_factors(factors)
        pyramid.check_factors(levels[0].shape, factors)
        for factor in factors:
            levels.append(pyramid.downsample(levels[-1], (factor,), variance_policy))
        return {**latent, "samples": levels[-1]}, pyramid.describe(levels)


SEED_TIP = "0 to 2^64 - 1. Give DMDPyramidSample the same one: it draws the noise between the pyramid's stages."
FACTORS_TIP = "One whole number per level. Three stages need 2,2. A size that they do not divide is refused."
POLICY_TIP = "noise: times the factor, so that white noise stays white. content: no gain, for latents of frames."
REFERENCE_TIP = "For policies that match another latent's statistics, which come with a later version: leave it open."
