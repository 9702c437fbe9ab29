"""CLIP: ComfyUI's interface of a text encoder around the core's, for core CLIPTextEncode and LoraLoader."""

from __future__ import annotations

from functools import cached_property

from . import core, host, sockets
from .unmoved import Unmoved


class TextSocket:
    """text: a prompt or several -> their Embedding, which this gives too when it is called."""

    def __init__(self, text):
        self.text = text
        self.patcher = Unmoved("HeliosLoader's text encoder")  # it is managed as it computes (managed.py)

    def __call__(self, prompt: str | list[str]):
        """The Embedding; asks before whether Stop was pressed."""
        if check := host.stop_check():
            check()
        found = self.text(prompt)
        return core.text.Embedding(sockets.tensor(found.rows), found.length)

    def tokenize(self, text: str, **_) -> str:
        """The text itself, for `encode_from_tokens`: it is taken word for word."""
        return text

    def encode_from_tokens(self, tokens: str, return_pooled=False, return_dict=False, **_):
        """Rows [1 n d] of a text, padded as the model expects; with None for what Helios has not, if asked."""
        rows = self(tokens).padded
        if return_dict:
            return {"cond": rows, "pooled_output": None}
        return (rows, None) if return_pooled else rows

    def encode_from_tokens_scheduled(self, tokens: str, add_dict: dict | None = None, **_) -> list:
        """CONDITIONING of a text."""
        return [[rows, {**more, **(add_dict or {})}] for rows, more in sockets.conditioning(self(tokens), tokens)]

    def clone(self, disable_dynamic=False) -> TextSocket:
        """Itself: nothing changes it."""
        return self

    def add_patches(self, *_, **__) -> list:
        """None taken: LoRAs of this text encoder are not known."""
        return []

    def clip_layer(self, *_):
        """Always ValueError: it is no CLIP whose layers count."""
        raise ValueError("Helios reads the text encoder's last layer; take CLIP Set Last Layer out of the graph")

    def get_sd(self, *_, **__):
        """Always ValueError: ComfyUI cannot save it."""
        raise ValueError("this text encoder is in its checkpoint's files; `helios convert` makes one file of it")

    load_model = state_dict_for_saving = get_sd  # what saves a CLIP loads it before

    @cached_property
    def cond_stage_model(self):
        """No layers that a LoRA may have."""
        import torch

        return torch.nn.Module()

    def is_dynamic(self) -> bool:
        """That its weights come and go, so that dropping this frees nothing."""
        return True


def encoder(clip, name: str = "text_encoder"):
    """A CLIP as a function from prompts to their Embedding. ValueError where it is no text encoder."""
    if isinstance(clip, TextSocket):
        return clip
    if not hasattr(clip, "tokenize"):
        if not callable(clip):
            raise ValueError(f"{name}: wanted a CLIP, HeliosLoader's or one of umt5-xxl; got {type(clip).__name__}")
        return TextSocket(clip)

    def encode(prompts: str | list[str]):
        import torch

        rows = [rows_of(clip, prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        return core.text.Embedding.of(torch.cat(rows))

    return encode


def rows_of(clip, prompt: str):
    """[1 n d] float32 of ComfyUI's own CLIP, of the text word for word, cleaned as Helios was trained."""
    tokens = clip.tokenize(core.text.prompt_clean(prompt), disable_weights=True)
    return clip.encode_from_tokens(tokens).float()
