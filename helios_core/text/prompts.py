"""Prompts over time: which prompt a chunk sees, and the small text format for it.

    0: a red circle; 4 (2): a blue square

Chunks are counted from 0. An entry is a chunk, where wanted a number of chunks to blend over in brackets, a colon and
the prompt; entries are separated by ';' or line breaks. From `chunk` on, over `blend` chunks, the new prompt's share
is 1/blend, 2/blend ... 1: the first of them is no longer the old prompt, the last is the new one exactly. So a blend
of 1, the default, is a cut. Official code repeats the old prompt in the first blended chunk and lets the prompts set
the video's length; here neither happens.

An entry may carry settings in square brackets (directions.py); with them it may leave out the prompt, which then stays.
Such a text is a score: it says all that a video depends on that may change from chunk to chunk.

    0 [seed 3]: a red circle; 4 (2) [cfg 2, cut]: a blue square; 6 [seed 4]:
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..config import limits
from . import directions
from .directions import Direction
from .embedding import Embedding, mix

# A separator counts only where an entry follows: "16:9", "12:30" and a ';' inside a prompt are text.
ENTRY = rf"(?:^|(?<!\\);|\n)\s*([-+]?\d[\d.,]*)[ \t]*(?:\(([^)\n]*)\))?[ \t]*(?:{directions.BRACKETS})?[ \t]*:(?!\d)"
LOG = logging.getLogger(__name__)
EXAMPLE = "'0: a red circle; 4 (2): a blue square'"


@dataclass(frozen=True)
class Cue:
    """A prompt from chunk `chunk` on, fully there from chunk + blend - 1 on, and settings.

    prompt: empty where only settings change.
    """

    chunk: int
    prompt: str
    blend: int = 1
    direction: Direction = Direction()


@dataclass(frozen=True)
class PromptSchedule:
    """Cues in ascending order, the first at chunk 0. ValueError names the cue that does not fit."""

    cues: tuple[Cue, ...]

    def __post_init__(self):
        shown = self.shown
        if not shown or self.cues[0].chunk != 0 or shown[0].chunk != 0:
            found = f"the first prompt begins at chunk {shown[0].chunk}" if shown else "there is no prompt"
            raise ValueError(f"prompt schedule: {found}; wanted one from chunk 0 on, as in {EXAMPLE}")
        if self.cues[0].blend != 1:
            raise ValueError("prompt schedule: nothing comes before chunk 0 to blend from; leave its brackets out")
        if self.cues[0].direction.end:
            raise ValueError("prompt schedule: the video cannot end before chunk 0; put end at a later one")
        for cue in self.cues:
            check_cue(cue)
        for cue, after in zip(self.cues, self.cues[1:]):
            check_order(cue, after)
        for cue, after in zip(shown, shown[1:]):
            check_blend(cue, after)

    @classmethod
    def parse(cls, text: str) -> PromptSchedule:
        r"""The schedule that `text` describes, in the format above.

        A ';' or line break that no entry follows belongs to the prompt, as does every colon after the entry's own; '\;'
        is always a plain ';'. The colon of an entry is not followed by a digit: "12:30" begins none. ValueError where
        the text begins otherwise.
        """
        return cls(tuple(entry.cue for entry in entries(text)))

    @property
    def shown(self) -> tuple[Cue, ...]:
        """The cues that have a prompt."""
        return tuple(cue for cue in self.cues if cue.prompt or not cue.direction)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, each once, in order."""
        return tuple(dict.fromkeys(cue.prompt for cue in self.shown))

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures that chunks are drawn toward, each once, in order."""
        return tuple(dict.fromkeys(cue.direction.image.name for cue in self.cues if cue.direction.image))

    @property
    def has_settings(self) -> bool:
        """Whether any entry has settings."""
        return any(cue.direction for cue in self.cues)

    @property
    def end(self) -> int | None:
        """The chunk before which the video ends, if the score says so."""
        return next((cue.chunk for cue in self.cues if cue.direction.end), None)

    def direction(self, chunk: int) -> Direction:
        """The settings of chunk `chunk`: what was last said of those that hold, and its own of the others."""
        held: dict = {}
        for cue in self.cues:
            if cue.chunk == chunk:
                return Direction(**{**held, **cue.direction.held()}, image=cue.direction.image, cut=cue.direction.cut)
            if cue.chunk > chunk:
                break
            held |= cue.direction.held()
        return Direction(**held)

    def shares(self, chunk: int) -> tuple[tuple[str, float], ...]:
        """What chunk `chunk` sees: one prompt with share 1, or the old and the new one; shares add up to 1.

        ValueError below chunk 0.
        """
        if chunk < 0:
            raise ValueError(f"chunk {chunk}: chunks are counted from 0")
        shown = self.shown
        place = max(i for i, cue in enumerate(shown) if cue.chunk <= chunk)
        cue = shown[place]
        share = min(1.0, (chunk - cue.chunk + 1) / cue.blend)
        return ((cue.prompt, 1.0),) if share == 1.0 else ((shown[place - 1].prompt, 1 - share), (cue.prompt, share))

    def check_end(self, chunks: int) -> None:
        """Warns of prompts that a video of so many chunks never shows; they do not make it longer."""
        for cue in self.shown:
            if cue.chunk >= chunks:
                LOG.warning("the prompt of chunk %d is not used: the video ends with chunk %d", cue.chunk, chunks - 1)

    def encode(self, text: Callable[[str], Embedding]) -> Schedule:
        """The schedule with its prompts encoded, each once. text: prompt -> its embedding."""
        return Schedule(self, {prompt: text(prompt) for prompt in self.prompts}, text)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A prompt schedule and its prompts' embeddings, of one prompt each. node: of ComfyUI's graph, that it is from."""

    source: PromptSchedule
    embeddings: dict[str, Embedding] = field(repr=False)
    text: Callable[[str], Embedding] | None = field(repr=False, default=None)
    node: str | None = None

    def embedding(self, chunk: int) -> Embedding:
        """What chunk `chunk` sees: a prompt's embedding, or two mixed linearly; encoded now where it is new."""
        shares = self.source.shares(chunk)
        for prompt, _ in shares:
            if prompt not in self.embeddings:
                self.embeddings[prompt] = self.text(prompt)
        return mix((self.embeddings[prompt], share) for prompt, share in shares)

    def replaced(self, source: PromptSchedule) -> Schedule:
        """Another schedule, whose new prompts are encoded when a chunk sees them."""
        return replace(self, source=source)


def check_prompt(prompt: str, what: str = "prompt") -> None:
    """ValueError for a prompt that says nothing, or is no text. what: where it stands, for the message."""
    if not prompt.strip():
        raise ValueError(f"{what}: the prompt is empty; say what the video should show")
    check_text(prompt, what)


def check_text(text: str, what: str) -> None:
    """ValueError for text that is none: bytes of another encoding, as a terminal may hand them on."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"{what}: {text[:40]!r} is no text in UTF-8; set the terminal or the file to UTF-8")


def as_schedule(prompt: str | PromptSchedule) -> PromptSchedule:
    """A plain prompt as the schedule that shows it throughout; its text is never read as an entry."""
    if isinstance(prompt, PromptSchedule):
        return prompt
    check_prompt(prompt)
    return PromptSchedule((Cue(0, prompt),))


def check_cue(cue: Cue) -> None:
    """ValueError for a cue that says nothing, or that no video can follow."""
    if not cue.prompt.strip() and cue.direction:
        if cue.blend != 1:
            raise ValueError(
                f"prompt schedule: chunk {cue.chunk} has no prompt to blend in; leave the round brackets out"
            )
    else:
        check_prompt(cue.prompt, f"prompt schedule, chunk {cue.chunk}")
    if cue.blend < 1:
        raise ValueError(f"prompt schedule: chunk {cue.chunk} blends over {cue.blend} chunks; wanted 1 (a cut) or more")
    if cue.chunk > limits.CHUNKS:
        raise ValueError(f"prompt schedule: chunk {cue.chunk}: wanted up to {limits.CHUNKS}")


def check_order(cue: Cue, after: Cue) -> None:
    """ValueError unless `after` comes later than `cue`."""
    if after.chunk <= cue.chunk:
        double = "twice" if after.chunk == cue.chunk else f"after chunk {cue.chunk}"
        raise ValueError(f"prompt schedule: chunk {after.chunk} comes {double}; wanted chunks in ascending order")


def check_blend(cue: Cue, after: Cue) -> None:
    """ValueError unless the prompt `after` comes later than the blend of `cue`."""
    if cue.chunk + cue.blend > after.chunk:
        raise ValueError(
            f"prompt schedule: chunk {cue.chunk} blends over {cue.blend} chunks, but the next prompt begins at chunk "
            f"{after.chunk}; blend over {after.chunk - cue.chunk} at most"
        )


class Entry(NamedTuple):
    """A cue in its text. head: the match of ENTRY; start, end: of the prompt, as it is written there."""

    cue: Cue
    head: re.Match
    start: int
    end: int


def entries(text: str) -> list[Entry]:
    """The entries of a schedule's text. ValueError where it begins with none, or one says what cannot be."""
    heads = list(re.finditer(ENTRY, text))
    if not heads or text[: heads[0].start()].strip():
        raise ValueError(f"prompt schedule: {text.strip()[:40]!r} does not begin with a chunk; wanted {EXAMPLE}")
    if unclosed := re.search(directions.UNCLOSED, text):
        raise ValueError(f"prompt schedule, chunk {unclosed[1]}: its brackets are not closed; put ']' before the colon")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [_entry(text, head, end) for head, end in zip(heads, ends)]


def _entry(text: str, head: re.Match, end: int) -> Entry:
    chunk, blend, settings = head[1], head[2], head[3]
    if not chunk.isdecimal():
        raise ValueError(f"prompt schedule: chunk {chunk!r}: wanted a whole number from 0 on")
    if blend is not None and not re.fullmatch(r"\s*\d+\s*", blend):
        raise ValueError(f"prompt schedule: chunk {chunk} ({blend}): wanted a whole number of chunks to blend over")
    raw = re.sub(r"(?<!\\);\s*$", "", text[head.end() : end])
    start = head.end() + len(raw) - len(raw.lstrip())
    prompt = raw.strip()
    where = f"prompt schedule, chunk {int(chunk)}"
    direction = Direction() if settings is None else directions.parse(settings, where)
    return Entry(
        Cue(int(chunk), prompt.replace("\\;", ";"), int(blend or 1), direction), head, start, start + len(prompt)
    )
