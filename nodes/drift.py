"""AntiDrift: what the model remembers of the newest chunk, kept from drifting away from the run."""

from __future__ import annotations

from dataclasses import replace

from . import core, directing, seeds, sockets, watch


class AntiDrift(seeds.SeededNode):
    """A drift policy on the newest chunk of a history."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Measures whether colours and contrast of the newest chunk drift away from the run's, and corrects the "
        "history's copy of it, so that the next chunk does not build on the error. Goes between two "
        "DMDPyramidSample, history to history, after every chunk. The sampled chunk itself stays as it is."
    )
    SEARCH_ALIASES = ["helios drift", "anti drift", "anti-drifting", "colour shift", "color shift", "long video"]
    FUNCTION = "correct"
    RETURN_TYPES = (sockets.HISTORY, "LATENT", "STRING")
    RETURN_NAMES = ("history", "latent", "report")
    OUTPUT_TOOLTIPS = (
        "The history with its newest chunk corrected, for the next chunk.",
        "That chunk, corrected, in raw VAE space. Decode DMDPyramidSample's, unless the correction is to be seen.",
        "The distances and whether they are drift; show it with Preview Any.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        threshold = {"default": 0.15, "min": 0.0, "max": 100.0, "step": 0.01, "advanced": True}
        momentum = {"default": 0.9, "min": 0.0, "max": 0.999, "step": 0.001, "round": 0.001, "advanced": True}
        return {
            "required": {
                "history": (sockets.HISTORY, {"tooltip": "DMDPyramidSample's, right after the chunk."}),
                "policy": (list(core.history.drift.POLICIES), {"default": "off", "tooltip": POLICY_TIP}),
            },
            "optional": {
                "strength": (
                    "FLOAT",
                    {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": STRENGTH_TIP},
                ),
                "mean_threshold": ("FLOAT", {**threshold, "tooltip": THRESHOLD_TIP.format("means")}),
                "variance_threshold": ("FLOAT", {**threshold, "tooltip": THRESHOLD_TIP.format("variances")}),
                "momentum": ("FLOAT", {**momentum, "tooltip": MOMENTUM_TIP}),
                "seed": seeds.widget(SEED_TIP),
            },
        }

    def correct(
        self, history, policy, strength=0.0, mean_threshold=0.15, variance_threshold=0.15, momentum=0.9, seed=0
    ):  # fmt: skip
        """(HELIOS_HISTORY corrected, LATENT of that chunk, STRING report)."""
        given = history.given or core.text.Direction()
        if given.end:
            return history, directing.no_frames(history), "the score has ended the video"
        wanted = core.history.drift.DriftPolicy(policy, strength, mean_threshold, variance_threshold, momentum)
        wanted = wanted.directed(given.drift)
        done = core.history.drift.correct(
            history.history,
            wanted,
            chunk_frames=history.chunk_frames,
            noise=core.noise.batch_noise(seed if given.seed is None else given.seed, history.history.shape[0]),
            array=history.array,
        )
        watch.show_drift(done.history.chunk - 1, wanted, done.drift)
        return replace(history, history=done.history), {"samples": history.raw(done.chunk)}, done.report


POLICY_TIP = (
    "off measures only. corrupt adds a little noise, as published, so that the model trusts the chunk less. "
    "renormalise goes back toward the running means and contrasts, anchor toward the first chunk's."
)
STRENGTH_TIP = "Of the noise (corrupt), or how far back (1: all the way). 0: the policy's own, 0.1 or 0.5."
THRESHOLD_TIP = "It is drift where the {} are further away than this, and the others too. 0 and 0 corrects every chunk."
MOMENTUM_TIP = "How slowly the running moments follow: 0.9 takes a tenth of each new chunk."
SEED_TIP = "Of corrupt's noise: give it DMDPyramidSample's. The other policies draw nothing."
