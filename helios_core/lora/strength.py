"""How strongly a LoRA changes each layer: one number, and factors of blocks."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

MAX_STRENGTH = 100.0
WANTED = (
    "wanted such as '0-9=0.5, 10=0, other=1': blocks, or 'other' for what is outside of them, or 'rest', and a factor"
)


class Strength(NamedTuple):
    """value, times a block's factor. text: as it was asked for. rest: of blocks that are not named; other: of layers
    outside of blocks."""

    value: float
    text: str = ""
    blocks: tuple[tuple[int, float], ...] = ()
    rest: float = 1.0
    other: float = 1.0

    def of(self, name: str) -> float:
        """Of a layer or parameter, by its published name."""
        if found := re.match(r"blocks\.(\d+)\.", name):
            return self.value * dict(self.blocks).get(int(found[1]), self.rest)
        return self.value * self.other

    def __str__(self) -> str:
        return f"{self.value:g} ({self.text})" if self.text else f"{self.value:g}"


def check_strength(strength: float) -> float:
    """ValueError unless it is a finite number of sensible size."""
    if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
        raise ValueError(
            f"LoRA strength {strength}: wanted a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}, mostly 1"
        )
    return float(strength)


def parse_blocks(text: str, layers: int | None = None) -> dict[str | int, float]:
    """ "0-9=0.5, 10=0, 20-=2, other=1, rest=0" -> factors by block, and by 'other' and 'rest' as far as they are named.

    layers: how many blocks the model has; None where it is not known yet, then an open range names none. ValueError
    for anything else, for a block that the model lacks, and for one that is named twice.
    """
    found: dict[str | int, float] = {}
    for part in filter(None, re.split(r"[,;\s]+", re.sub(r"\s*([=-])\s*", r"\1", text.strip()))):
        name, _, factor = part.partition("=")
        span = re.fullmatch(r"(\d+)(?:(-)(\d*))?", name)
        try:
            factor = check_strength(float(factor))
        except ValueError:
            raise ValueError(f"LoRA blocks {part!r}: {WANTED}") from None
        if not span and name not in ("other", "rest"):
            raise ValueError(f"LoRA blocks {part!r}: {WANTED}")
        for block in _span(part, span, layers) if span else [name]:
            if block in found:
                raise ValueError(f"LoRA blocks {part!r}: {block} is named twice in {text!r}")
            found[block] = factor
    return found


def _span(part: str, span: re.Match, layers: int | None) -> range:
    first = int(span[1])
    last = first if not span[2] else int(span[3]) if span[3] else (layers or first + 1) - 1
    if last < first or (layers is not None and last >= layers):
        raise ValueError(f"LoRA blocks {part!r}: this model has blocks 0 to {(layers or last + 1) - 1}; {WANTED}")
    return range(first, last + 1)


def read_strength(strength: float, blocks: str = "", layers: int | None = None) -> Strength:
    """Of a number, and of factors of blocks as `parse_blocks` takes them. 'rest' is for blocks that are not named, and
    where 'other' is not, for layers outside of blocks too. ValueError for what is no such thing."""
    found = parse_blocks(blocks, layers)
    rest = found.pop("rest", 1.0)
    other = found.pop("other", rest)
    return Strength(check_strength(strength), " ".join(blocks.split()), tuple(sorted(found.items())), rest, other)
