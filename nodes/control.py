"""HeliosControl: the model under a second video, which says what is where; chain several."""

from __future__ import annotations

from . import core, engine, engine_control, host, sockets


class HeliosControl:
    """A control video on a model."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Has the video follow a second one: latents of a control video go in beside the noise, at every stage of the "
        "pyramid, through a small adapter that was trained for one kind of control. Chain several to combine them. "
        "The model that comes in stays as it is; at strength 0 nothing changes at all."
    )
    SEARCH_ALIASES = ["helios control", "controlnet", "track", "trajectory", "motion path", "guide video", "robot"]
    FUNCTION = "apply"
    RETURN_TYPES = (sockets.MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = (
        "The model under control, for DMDPyramidSample or another HeliosControl.",
        "Which chunks are controlled, by what, and which frames are left out.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        chunk = {"min": 0, "max": 100000}
        names = [core.control.TINY_ADAPTER, *host.file_names(core.control.ADAPTERS, core.checkpoint.SAFETENSORS)]
        return {
            "required": {
                "model": (
                    sockets.MODEL,
                    {"tooltip": "The model of HeliosLoader, HeliosLora or another HeliosControl."},
                ),
                "adapter": (names, {"default": names[0], "tooltip": ADAPTER_TIP}),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05, "tooltip": STRENGTH_TIP}),
                "start_chunk": ("INT", {"default": 0, **chunk, "tooltip": START_TIP}),
                "end_chunk": ("INT", {"default": -1, **chunk, "min": -1, "tooltip": END_TIP}),
                "policy": (list(core.control.POLICIES), {"default": core.control.POLICIES[0], "tooltip": POLICY_TIP}),
            },
            "optional": {
                "control": ("IMAGE", {"tooltip": CONTROL_TIP}),
                "latent": ("LATENT", {"tooltip": LATENT_TIP}),
                "vae": ("VAE", {"tooltip": "Encodes control; left open, the model's own does."}),
                "width": ("INT", {"default": 0, "min": 0, "max": 16384, "step": 16, "tooltip": SIZE_TIP}),
                "height": ("INT", {"default": 0, "min": 0, "max": 16384, "step": 16, "tooltip": SIZE_TIP}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, adapter=None, **_):
        """Size and date of the file: one that was written anew is read anew."""
        return host.file_stamp(host.control_path(adapter)) if adapter else ""

    def apply(
        self, model, adapter, strength, start_chunk, end_chunk, policy, control=None, latent=None, vae=None, width=0,
        height=0,
    ):  # fmt: skip
        """(The model under control, what it is as text); the one given stays as it is.

        ValueError unless one of control and latent is wired.
        """
        file = host.control_path(adapter)
        if (control is None) == (latent is None):
            raise ValueError("wire one of control, a video's pictures, and latent, what a VAE made of whole chunks")
        helios, told = engine.pipeline(model), []
        if latent is not None:
            raw = sockets.samples(latent, "latent", channels=helios.config.vae.z_dim)
            z = helios.normalise(helios.backend.array(raw))
        else:
            own = helios.config.defaults
            encode = sockets.encoder(engine.vae_of(model) if vae is None else vae)
            size = width or own.width, height or own.height
            z = core.control.encode_clip(helios, control, *size, encode=encode, tell=told.append)
        how = {"strength": strength, "first": start_chunk, "last": None if end_chunk < 0 else end_chunk}
        made, active = engine_control.with_control(model, file, z, policy=policy, **how)
        return made, "\n".join([active.report, *told])


ADAPTER_TIP = (
    "Made by helios train control, in ComfyUI's controlnet folder. helios-tiny-control ships, for helios-tiny: a white "
    "disc on black where the object is."
)
STRENGTH_TIP = "1 as trained, 0 nothing."
START_TIP = "The first chunk that is controlled, counted from 0. The control video begins with it."
END_TIP = "The last one. -1: as far as the control video goes; from there on the video goes its own way."
POLICY_TIP = (
    "How the control's latents shrink to the pyramid's coarser stages, as in Pyramid Downsample. from adapter: as it "
    "was trained, which is best."
)
CONTROL_TIP = (
    "The control video, 33 frames to a chunk. What it shows is the adapter's matter. Other sizes are cropped about the "
    "centre and resized."
)
LATENT_TIP = "In place of control: its raw VAE latents, whole chunks of 9 latent frames, each encoded on its own."
SIZE_TIP = "Of the video; the control is encoded at it. 0: the checkpoint's own."
