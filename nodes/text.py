"""T5Encode: a prompt into CONDITIONING."""

from __future__ import annotations

from . import host, sockets


class T5Encode:
    CATEGORY = "Helios"
    DESCRIPTION = (
        "Encodes a prompt with the checkpoint's UMT5 text encoder. The result is ordinary CONDITIONING; for the "
        "published checkpoints, CLIP Text Encode with a umt5-xxl CLIP can take its place."
    )
    SEARCH_ALIASES = ["helios prompt", "helios text encode", "umt5"]
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The encoded text, for positive or negative of DMDPyramidSample.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "text_encoder": (sockets.TEXT_ENCODER, {"tooltip": "The text encoder of HeliosLoader."}),
                "text": ("STRING", {"multiline": True, "default": "", "tooltip": TEXT_TIP}),
            },
        }

    def encode(self, text_encoder, text):
        if check := host.stop_check():
            check()
        return (sockets.conditioning(text_encoder(text), text),)


TEXT_TIP = "What the video shows. Taken word for word: no weights in brackets. May be empty only for a negative prompt."
