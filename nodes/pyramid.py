"""HeliosNoise and PyramidDownsample: a chunk's noise, and how it shrinks down the pyramid."""

from __future__ import annotations

from . import core, seeds, sockets


class HeliosNoise(seeds.SeededNode):
    """The noise of a history's next chunk."""

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
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "history": (sockets.HISTORY, {"tooltip": "Says how large the chunk is, and which one comes next."}),
                "seed": seeds.widget(SEED_TIP),
            },
        }

    def draw(self, history, seed):
        """(LATENT [b c t h w],), white, at full resolution."""
        return ({"samples": sockets.tensor(core.history.chunk_noise(history.history, seed, history.chunk_frames))},)


class PyramidDownsample:
    """A latent and its smaller levels."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Shrinks a latent down the resolution pyramid. White noise loses spread in a mean, and a latent of real frames "
        "hardly any, so the policy says how much to give back: noise or analytic for noise, content for latents of "
        "frames, match to keep what was measured."
    )
    SEARCH_ALIASES = ["helios downsample", "latent downscale", "latent resize", "pyramid", "variance", "noise gain"]
    FUNCTION = "shrink"
    RETURN_TYPES = ("LATENT", "STRING", sockets.LEVELS)
    RETURN_NAMES = ("latent", "report", "levels")
    OUTPUT_TOOLTIPS = (
        "The smaller latent, in the space it came in.",
        "Each level's size, mean, std, extremes, spread of its channels, and the gain; show it with Preview Any.",
        "All levels, finest first, for Helios Latent Plot.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "latent": ("LATENT", {"tooltip": "Noise or latents, used as they are: no mean and std are applied."}),
                "factors": ("STRING", {"default": "2,2", "tooltip": FACTORS_TIP}),
                "variance_policy": (list(core.pyramid.POLICIES), {"default": "noise", "tooltip": POLICY_TIP}),
            },
            "optional": {
                "kernel": (list(core.pyramid.KERNELS), {"default": "area", "tooltip": KERNEL_TIP}),
                "reference": ("LATENT", {"tooltip": REFERENCE_TIP}),
            },
        }

    def shrink(self, latent, factors, variance_policy, kernel="area", reference=None):
        """(LATENT of the coarsest level, with the others, STRING report)."""
        x = sockets.samples(latent, "latent")
        other = None if reference is None else sockets.samples(reference, "reference")
        factors = core.pyramid.parse_factors(factors)
        levels = core.pyramid.build(x, factors, variance_policy, kernel=kernel, reference=other)
        return {**latent, "samples": levels.arrays[-1]}, core.pyramid.describe(levels), levels


SEED_TIP = "0 to 2^64 - 1. Give DMDPyramidSample the same one: it draws the noise between the pyramid's stages."
FACTORS_TIP = "One per level, whole or a fraction, such as 3/2. Three stages need 2,2. Sizes are rounded down."
POLICY_TIP = (
    "noise: times the factor, the model's own way with white noise. content: no gain, for latents of frames. "
    "analytic: unit variance for white noise at any factor, size and kernel. match: the std that the latent (or the "
    "reference) has; match_channel and match_frame do so per channel, or per channel and frame."
)
KERNEL_TIP = (
    "How pixels are weighed. area: equal means of whole cells. bilinear, nearest, bicubic: as torch's interpolate, "
    "which skips pixels; bilinear_aligned: with align_corners. lanczos: sharp, and counts every pixel."
)
REFERENCE_TIP = "For the match policies: the latent whose std is aimed at, of as many channels. Left open: the input."
