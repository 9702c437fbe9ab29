"""Prompts: cleaned, cut into tokens, remembered once encoded, and scheduled over the chunks of a video."""

from . import editing, remembered
from .clean import prompt_clean
from .directions import Direction, Picture
from .embedding import Embedding
from .live_score import LiveScore, cells
from .prompts import PromptSchedule, as_schedule, check_prompt, check_text
from .tokenizer import fields, load_tokenizer

__all__ = [
    "Direction",
    "Embedding",
    "LiveScore",
    "Picture",
    "PromptSchedule",
    "as_schedule",
    "cells",
    "check_prompt",
    "check_text",
    "editing",
    "fields",
    "load_tokenizer",
    "prompt_clean",
    "remembered",
]
