"""Prompts over time: which prompt a chunk sees, and the small text format for it.

    0: a red circle; 4 (2): a blue square

Chunks are counted from 0. An entry is a chunk, where wanted a number of chunks to blend over in brackets, a colon and
the prompt; entries are separated by ';' or line breaks. From `chunk` on, over `blend` chunks, the new prompt's share
is 1/blend, 2/blend ... 1: the first of them is no longer the old prompt, the last is the new one exactly. So a blend
of 1, the default, is a cut. Official code repeats the old prompt in the first blended chunk and lets the prompts set
the video's length; here neither happens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .embedding import Embedding, mix

# A separator counts only where an entry follows: "16:9", "12:30" and a ';' inside a prompt are text.
ENTRY = r"(?:^|(?<!\\);|\n)\s*([-+]?\d[\d.,]*)[ \t]*(?:\(([^)\n]*)\))?[ \t]*:(?!\d)"
LOG = logging.getLogger(__name__)
EXAMPLE = "'0: a red circle; 4 (2): a blue square'"


@dataclass(frozen=True)
class Cue:
    """A prompt from chunk `chunk` on, fully there from chunk + blend - 1 on."""

    chunk: int
    prompt: str
    blend: int = 1


@dataclass(frozen=True)
class PromptSchedule:
    """Cues in ascending order, the first at chunk 0. ValueError names the cue that does not fit."""

    cues: tuple[Cue, ...]

    def __post_init__(self):
        if not self.cues or self.cues[0].chunk != 0:
            found = f"the first prompt begins at chunk {self.cues[0].chunk}" if self.cues else "there is no prompt"
            raise ValueError(f"prompt schedule: {found}; wanted one from chunk 0 on, as in {EXAMPLE}")
        if self.cues[0].blend != 1:
            raise ValueError("prompt schedule: nothing comes before chunk 0 to blend from; leave its brackets out")
        for cue in self.cues:
            check_prompt(cue.prompt, f"prompt schedule, chunk {cue.chunk}")
            if cue.blend < 1:
                raise ValueError(
                    f"prompt schedule: chunk {cue.chunk} blends over {cue.blend} chunks; wanted 1 (a cut) or more"
                )
        for cue, after in zip(self.cues, self.cues[1:]):
            check_pair(cue, after)

    @classmethod
    def parse(cls, text: str) -> PromptSchedule:
        r"""The schedule that `text` describes, in the format above.

        A ';' or line break that no entry follows belongs to the prompt, as does every colon after the entry's own; '\;'
        is always a plain ';'. The colon of an entry is not followed by a digit: "12:30" begins none. ValueError where
        the text begins otherwise.
        """
        heads = list(re.finditer(ENTRY, text))
        if not heads or text[: heads[0].start()].strip():
            raise ValueError(f"prompt schedule: {text.strip()[:40]!r} does not begin with a chunk; wanted {EXAMPLE}")
        ends = [head.start() for head in heads[1:]] + [len(text)]
        return cls(tuple(_cue(head, text[head.end() : end]) for head, end in zip(heads, ends)))

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, each once, in order."""
        return tuple(dict.fromkeys(cue.prompt for cue in self.cues))

    def shares(self, chunk: int) -> tuple[tuple[str, float], ...]:
        """What chunk `chunk` sees: one prompt with share 1, or the old and the new one; shares add up to 1.

        ValueError below chunk 0.
        """
        if chunk < 0:
            raise ValueError(f"chunk {chunk}: chunks are counted from 0")
        place = max(i for i, cue in enumerate(self.cues) if cue.chunk <= chunk)
        cue = self.cues[place]
        share = min(1.0, (chunk - cue.chunk + 1) / cue.blend)
        return ((cue.prompt, 1.0),) if share == 1.0 else ((self.cues[place - 1].prompt, 1 - share), (cue.prompt, share))

    def check_end(self, chunks: int) -> None:
        """Warns of prompts that a video of so many chunks never shows; they do not make it longer."""
        for cue in self.cues:
            if cue.chunk >= chunks:
                LOG.warning("the prompt of chunk %d is not used: the video ends with chunk %d", cue.chunk, chunks - 1)

    def encode(self, text: Callable[[str], Embedding]) -> Schedule:
        """The schedule with its prompts encoded, each once. text: prompt -> its embedding."""
        return Schedule(self, {prompt: text(prompt) for prompt in self.prompts})


@dataclass(frozen=True, eq=False)
class Schedule:
    """A prompt schedule and its prompts' embeddings, of one prompt each."""

    source: PromptSchedule
    embeddings: dict[str, Embedding] = field(repr=False)

    def embedding(self, chunk: int) -> Embedding:
        """What chunk `chunk` sees: a prompt's embedding, or two mixed linearly."""
        return mix((self.embeddings[prompt], share) for prompt, share in self.source.shares(chunk))


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


def check_pair(cue: Cue, after: Cue) -> None:
    """ValueError unless `after` comes later than `cue`, and than its blend."""
    if after.chunk <= cue.chunk:
        double = "twice" if after.chunk == cue.chunk else f"after chunk {cue.chunk}"
        raise ValueError(f"prompt schedule: chunk {after.chunk} comes {double}; wanted chunks in ascending order")
    if cue.chunk + cue.blend > after.chunk:
        raise ValueError(
            f"prompt schedule: chunk {cue.chunk} blends over {cue.blend} chunks, but the next prompt begins at chunk "
            f"{after.chunk}; blend over {after.chunk - cue.chunk} at most"
        )


def _cue(head: re.Match, prompt: str) -> Cue:
    chunk, blend = head[1], head[2]
    if not chunk.isdecimal():
        raise ValueError(f"prompt schedule: chunk {chunk!r}: wanted a whole number from 0 on")
    if blend is not None and not re.fullmatch(r"\s*\d+\s*", blend):
        raise ValueError(f"prompt schedule: chunk {chunk} ({blend}): wanted a whole number of chunks to blend over")
    prompt = re.sub(r"(?<!\\);\s*$", "", prompt)
    return Cue(int(chunk), prompt.replace("\\;", ";").strip(), int(blend or 1))
