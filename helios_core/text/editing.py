"""A schedule's text, written: whole, or an edit of one entry that changes only the characters it is about."""

from __future__ import annotations

import re
from dataclasses import fields, replace

from ..config import limits
from . import directions
from .directions import WORDS, Direction
from .prompts import ENTRY, Cue, Entry, PromptSchedule, entries


def write(schedule: PromptSchedule) -> str:
    """The text that `PromptSchedule.parse` reads as this schedule, an entry per line.

    ValueError for what no text can say, such as a prompt with a line that looks like an entry.
    """
    text = "\n".join(_written(cue) for cue in schedule.cues)
    return _checked(text, schedule)


def edit(text: str, chunk: int, **changes) -> str:
    """The schedule's text with the entry at `chunk` changed, or a new one there.

    changes: prompt, blend, and settings by the names of Direction's fields; a prompt or a setting of None is taken
    away (of cut and end: False). An entry that then says nothing goes. ValueError for what cannot be.
    """
    found = entries(text)
    limits.check_whole("chunk", chunk, limits.CHUNKS, least=0)
    if unknown := sorted(set(changes) - {"prompt", "blend", *(f.name for f in fields(Direction))}):
        raise ValueError(f"unknown {', '.join(unknown)}; wanted prompt, blend, {', '.join(WORDS)}")
    before = PromptSchedule(tuple(entry.cue for entry in found))
    for name, value in changes.items():
        check_kind(name, value)
    if changes.get("prompt"):
        changes["prompt"] = read(escape(changes["prompt"]))
    old = next((entry for entry in found if entry.cue.chunk == chunk), None)
    cue = _changed(old.cue if old else Cue(chunk, ""), changes)
    others = [entry.cue for entry in found if entry is not old]
    kept = [cue] if cue.prompt or cue.direction else []
    if not kept and changes.get("blend"):
        raise ValueError(f"chunk {chunk} has no prompt to blend in; give one")
    wanted = PromptSchedule(tuple(sorted([*others, *kept], key=lambda cue: cue.chunk)))
    if wanted == before:
        return text
    return _checked(_spliced(text, found, old, cue, bool(kept)), wanted)


def entry(text: str, chunk: int) -> str:
    """The entry at a chunk as it stands in a schedule's text; empty where there is none. ValueError for no schedule."""
    found = [one for one in entries(text) if one.cue.chunk == chunk]
    return " ".join(text[one.head.start(1) : one.end] for one in found)


KINDS = {"prompt": str, "blend": int, "seed": int, "cfg": (int, float), "drift": (int, float), "cut": bool, "end": bool}


def check_kind(name: str, value) -> None:
    """ValueError for a value that is of no kind for its name, as JSON may bring it; None takes a setting away."""
    if value is None:
        return
    if name == "image":
        fine = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)
        if not fine or isinstance(value[1], bool) or not isinstance(value[1], (int, float)):
            raise ValueError(f"image {value!r}: wanted a file's name and a strength, such as ['cat.png', 0.4]")
    elif not isinstance(value, KINDS[name]) or (isinstance(value, bool) and KINDS[name] is not bool):
        raise ValueError(f"{name}: cannot be {value!r}")


def escape(prompt: str) -> str:
    """A prompt as it is written: ';' as '\\;', and a line that looks like an entry on the line before."""
    whole = "x" + prompt.strip().replace(";", "\\;")
    return re.sub(ENTRY, lambda found: " " + found[0].lstrip(), whole)[1:]


def read(written: str) -> str:
    """A written prompt as it is meant."""
    return written.replace("\\;", ";")


def _changed(cue: Cue, changes: dict) -> Cue:
    said = {name: value for name, value in changes.items() if name not in ("prompt", "blend")}
    said |= {name: float(said[name]) for name in ("cfg", "drift") if said.get(name) is not None}
    said |= {name: bool(said[name]) for name in ("cut", "end") if name in said}
    if said.get("image"):
        name, strength = said["image"]
        said["image"] = directions.Picture(name, float(strength))
    direction = replace(cue.direction, **said)
    prompt = (changes["prompt"] or "") if "prompt" in changes else cue.prompt
    return Cue(cue.chunk, prompt, changes.get("blend") or (cue.blend if prompt else 1), direction)


def _spliced(text: str, found: list[Entry], old: Entry | None, cue: Cue, stays: bool) -> str:
    if old is None:
        last = max((entry for entry in found if entry.cue.chunk < cue.chunk), key=lambda entry: entry.cue.chunk)
        return f"{text[: last.end]}\n{_written(cue)}{text[last.end :]}"
    if not stays:
        following = next((entry.head.start() for entry in found if entry.cue.chunk > cue.chunk), len(text))
        return text[: old.head.start()] + text[following:]
    edits = []
    if cue.prompt != old.cue.prompt:
        edits.append((old.start, old.end, (" " if old.start == old.head.end() else "") + escape(cue.prompt)))
    if cue.direction != old.cue.direction:
        edits.append(_brackets(old, cue))
    if cue.blend != old.cue.blend:
        start, end = old.head.span(2) if old.head[2] is not None else (old.head.end(1), old.head.end(1))
        put = f"{cue.blend}" if old.head[2] is not None else f" ({cue.blend})"
        edits.append((old.head.end(1), end + 1, "") if cue.blend == 1 else (start, end, put))
    for start, end, put in sorted(edits, reverse=True):  # backwards, so that the places before an edit stay right
        text = text[:start] + put + text[end:]
    return text


def _brackets(old: Entry, cue: Cue) -> tuple[int, int, str]:
    """The edit of an entry's square brackets: each setting that stays keeps its own characters."""
    inside = old.head[3]
    if inside is None:
        place = old.head.end(2) + 1 if old.head[2] is not None else old.head.end(1)
        return place, place, f" [{directions.write(cue.direction)}]"
    start, end = old.head.span(3)
    if not cue.direction:
        before = old.head.end(2) + 1 if old.head[2] is not None else old.head.end(1)
        return before, end + 1, ""
    there = list(directions.items(inside, ""))
    words = directions.said(cue.direction)
    added = [directions.write_item(word, words[word]) for word in words if word not in {item.word for item in there}]
    put = ", ".join([_items(inside, there, old.cue.direction, words), *added])
    return start, end, put if any(item.word in words for item in there) else ", ".join(added)


def _items(inside: str, there: list[directions.Item], before: Direction, words: dict) -> str:
    """A bracket's text with those of its settings that `words` has, as they stand there where they are the same."""
    text, last = inside, len(there) - 1
    for i, item in reversed(list(enumerate(there))):
        if item.word not in words:
            cut = (item.start, there[i + 1].start) if i < last else (there[i - 1].end if i else 0, item.end)
            text = text[: cut[0]] + text[cut[1] :]
            last -= i == last
        elif getattr(before, item.word) != words[item.word]:
            text = text[: item.start] + directions.write_item(item.word, words[item.word]) + text[item.end :]
    return text


def _written(cue: Cue) -> str:
    blend = f" ({cue.blend})" if cue.blend != 1 else ""
    settings = f" [{directions.write(cue.direction)}]" if cue.direction else ""
    return f"{cue.chunk}{blend}{settings}: {escape(cue.prompt)}".rstrip()


def _checked(text: str, wanted: PromptSchedule) -> str:
    """The text. ValueError where it would be read as something else."""
    if PromptSchedule.parse(text) != wanted:
        raise ValueError("this cannot be written as a schedule: a line of a prompt looks like an entry of its own")
    return text
