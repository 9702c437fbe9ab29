"""The words that helios-tiny was taught: those of the scenes' captions. What else a prompt says moves nothing."""

from __future__ import annotations

import re

from .scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

KNOWN = {*COLOURS, *SHAPES, *BACKGROUNDS, "a", "an", "and", "on", "background"}
KNOWN |= {word for ways in MOTIONS.values() for way in ways for word in way.split()}
MOST = 6  # words that are named


def unknown_words(prompt: str) -> list[str]:
    """Those of a prompt that no caption has, in lower case, each once, in their order."""
    return [word for word in dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower())) if word not in KNOWN]


def told(prompt: str) -> str:
    """A line for people about a prompt's unknown words; nothing where there are none."""
    if not (words := unknown_words(prompt)):
        return ""
    named = ", ".join(words[:MOST]) + (" ..." if len(words) > MOST else "")
    return (
        f"helios-tiny was taught few words, and not: {named}. It draws coloured shapes that move, such as 'a red "
        "circle moving left'; for anything else choose the 14B model, or teach it: helios train lora"
    )
