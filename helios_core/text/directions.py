"""What a score says of a chunk beside its prompt, in square brackets.

    4 (2) [seed 7, cfg 3, drift 0.5, image "a cat.png" 0.4, cut]: a blue square

seed (a take), cfg and drift hold from their chunk on, until another entry changes them; image and cut are of their
chunk alone; end says that the video ends before the chunk. A name with a space, a comma or a bracket stands in double
quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..config import limits
from ..noise import MAX_SEED

HELD = ("seed", "cfg", "drift")  # what holds until it is changed
WORDS = (*HELD, "image", "cut", "end")
# What brackets hold is settings where it begins as settings do: other brackets before a colon are text, as ever.
BEGINS = rf"(?=[ \t]*(?:(?:{'|'.join(WORDS)})\b|[A-Za-z]+[ \t]+[-+]?\.?\d))"
BRACKETS = rf'\[({BEGINS}(?:"[^"\n]*"|[^\]"\n])*)\]'
# As an entry begins, but the line ends before its brackets do.
UNCLOSED = rf"(?:^|(?<!\\);|\n)\s*([0-9]+)[ \t]*(?:\([^)\n]*\))?[ \t]*\[{BEGINS}[^\]\n]*(?=\n|$)"
NUMBER = r"\d+(?:\.\d+)?|\.\d+"
WANTED = "'[seed 7, cfg 3, drift 0.5, image cat.png 0.4, cut, end]'"


class Picture(NamedTuple):
    """A picture that a chunk is drawn toward: a file's name, and how far, from above 0 to 1."""

    name: str
    strength: float


@dataclass(frozen=True)
class Direction:
    """The settings of a chunk. None, or False, is what the entry does not say."""

    seed: int | None = None
    cfg: float | None = None
    drift: float | None = None
    image: Picture | None = None
    cut: bool = False
    end: bool = False

    def __bool__(self) -> bool:
        return self != Direction()

    def held(self) -> dict[str, float]:
        """What of it holds for later chunks too."""
        return {name: value for name in HELD if (value := getattr(self, name)) is not None}


class Item(NamedTuple):
    """One setting of a bracket's text: its word, its value, and where it stands there."""

    word: str
    value: object
    start: int
    end: int


def items(text: str, where: str) -> Iterator[Item]:
    """The settings of a bracket's text. where: which chunk's, for the message of a ValueError."""
    for part in re.finditer(r'(?:"[^"\n]*"|[^,"])+|(?<=,)(?=,|$)', text):
        bare = part[0].strip()
        start = part.start() + len(part[0]) - len(part[0].lstrip())
        word, _, rest = bare.partition(" ") if " " in bare else bare.partition("\t")
        if word not in WORDS:
            said = f"unknown setting {word!r}" if word else "a setting is missing beside a comma"
            raise ValueError(f"{where}: {said}; wanted some of {WANTED}")
        yield Item(word, _value(word, rest.strip(), where), start, start + len(bare))


def parse(text: str, where: str) -> Direction:
    """The settings of a bracket's text. ValueError names the chunk, `where`, and the setting that does not fit."""
    found: dict = {}
    for item in items(text, where):
        if item.word in found:
            raise ValueError(f"{where}: {item.word} comes twice in the brackets; leave one")
        found[item.word] = item.value
    return Direction(**found)


def _value(word: str, text: str, where: str):
    if word in ("cut", "end"):
        if text:
            raise ValueError(f"{where}: {word} takes nothing behind it, got {text!r}")
        return True
    if word == "image":
        return _picture(text, where)
    if word == "seed":
        if not re.fullmatch("[0-9]+", text) or len(text) > 20 or int(text) > MAX_SEED:
            raise ValueError(f"{where}: seed {text!r}: wanted a whole number from 0 to {MAX_SEED}")
        return int(text)
    most = 1.0 if word == "drift" else limits.SCALE
    if not re.fullmatch(NUMBER, text, re.ASCII) or not float(text) <= most:
        raise ValueError(f"{where}: {word} {text!r}: wanted a number from 0 to {most:g}")
    return float(text)


def _picture(text: str, where: str) -> Picture:
    found = re.fullmatch(rf'(?:"([^"\n]*)"|(.*?))[ \t]+({NUMBER})', text, re.ASCII)
    name = found and (found[2] if found[1] is None else found[1])
    if not name or '"' in name or not 0 < float(found[3]) <= 1:
        raise ValueError(
            f"{where}: image {text!r}: wanted a file's name and a strength above 0, up to 1, such as image cat.png 0.4"
        )
    return Picture(name, float(found[3]))


def write(direction: Direction) -> str:
    """The text between the brackets that `parse` reads as this."""
    return ", ".join(write_item(word, value) for word, value in said(direction).items())


def said(direction: Direction) -> dict:
    """The settings that a direction has, by their words."""
    values = {word: getattr(direction, word) for word in WORDS}
    return {word: value for word, value in values.items() if value is not None and value is not False}


def write_item(word: str, value) -> str:
    """One setting as text. ValueError for a file's name that no text can say."""
    if value is True:
        return word
    if word != "image":
        return f"{word} {_number(value)}"
    name, strength = value
    if '"' in name or "\n" in name or not name:
        raise ValueError(f"image {name!r}: a file's name here has no quotes and no line breaks; rename it")
    plain = re.fullmatch(r"[^\s,\]]+", name)
    return f"image {name if plain else f'{chr(34)}{name}{chr(34)}'} {_number(strength)}"


def _number(value) -> str:
    return str(value) if isinstance(value, int) else np.format_float_positional(value, trim="-")
