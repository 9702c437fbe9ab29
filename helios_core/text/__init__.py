"""Prompts: cleaned, cut into tokens, remembered once encoded, and scheduled over the chunks of a video."""

from . import remembered
from .clean import prompt_clean
from .prompts import PromptSchedule, as_schedule
from .tokenizer import load_tokenizer

__all__ = ["PromptSchedule", "as_schedule", "load_tokenizer", "prompt_clean", "remembered"]
