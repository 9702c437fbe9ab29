"""T5Encode and HeliosPromptSchedule: prompts into CONDITIONING."""

from __future__ import annotations

from dataclasses import replace

from . import core, directing, host, runs, sockets
from .text_socket import encoder


class T5Encode:
    """A prompt, or one per line, for the sampler."""

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
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "text_encoder": (sockets.TEXT_ENCODER, {"tooltip": ENCODER_TIP}),
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True, "default": "", "tooltip": TEXT_TIP}),
            },
            "optional": {
                "one_per_line": ("BOOLEAN", {"default": False, "advanced": True, "tooltip": LINES_TIP}),
            },
        }

    def encode(self, text_encoder, text, one_per_line=False):
        """(CONDITIONING,). ValueError for no prompt in a list of them."""
        prompts = [line.strip() for line in text.splitlines() if line.strip()] if one_per_line else text
        if one_per_line and not prompts:
            raise ValueError("text: wanted a prompt per line, there is none; or switch one_per_line off")
        return (sockets.conditioning(encoder(text_encoder)(prompts), text),)


class HeliosPromptSchedule:
    """Prompts from given chunks on."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Prompts over time: each is shown from a chunk on, if wanted blended in over several. Wire it to positive (or "
        "negative) of every DMDPyramidSample, which picks its chunk's prompt by the history it is given."
    )
    SEARCH_ALIASES = ["helios prompts", "prompt travel", "prompt blending", "timeline", "batch prompt schedule"]
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The schedule, for DMDPyramidSample. Nodes that know none see the first prompt.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "text_encoder": (sockets.TEXT_ENCODER, {"tooltip": ENCODER_TIP}),
                "text": (
                    "STRING",
                    {"multiline": True, "dynamicPrompts": True, "default": EXAMPLE, "tooltip": SCHEDULE_TIP},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, text=None):
        """None: it comes over a wire, and is not known yet."""
        try:
            directing.check_text(EXAMPLE if text is None else text)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, text=None, **_):
        """The sizes and dates of the pictures that the text names, and whether a run that began with it was edited."""
        names = core.text.PromptSchedule.parse(text).pictures if text else ()
        return [runs.times_edited(text), *(host.file_stamp(directing.picture_path(name)) for name in names)]

    def encode(self, text_encoder, text, unique_id=None):
        """(CONDITIONING,) of the first prompt; the sampler finds the others in it."""
        schedule = replace(directing.check_text(text).encode(encoder(text_encoder)), node=unique_id)
        return (sockets.conditioning(schedule.embedding(0), schedule.source.prompts[0], schedule),)


EXAMPLE = "0: a red circle moving left\n2 (2): a blue square moving up"
SCHEDULE_TIP = (
    "A chunk, a colon, its prompt, then a new line or ; and the next. Chunks count from 0. '4 (2): a blue square' is "
    "blended in over 2 chunks: half of it in chunk 4, all of it from chunk 5 on. '6 [seed 7]:' keeps the prompt and "
    "takes another seed from chunk 6 on; so do cfg and drift. Of one chunk: image NAME STRENGTH, cut. end: no more."
)
LINES_TIP = "Each line is a prompt of its own, for a batch of as many videos at once (batch_size of HistoryMemory)."
TEXT_TIP = "What the video shows. Taken word for word: no weights in brackets. May be empty only for a negative prompt."
ENCODER_TIP = "The text encoder of HeliosLoader, or of CLIP Loader with a umt5-xxl file and type wan."
