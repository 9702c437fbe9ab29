"""Which files of a folder are trained on, and what their captions say. All that can be wrong is found before encoding.

A caption is the text of a .txt file beside the clip or picture, or a row of the folder's one .csv or .jsonl file with
the columns file and caption; a file may have several rows, each another way to say it.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from ...disk import shown
from ...media import PICTURES, UNREADABLE, VIDEOS, probe

TABLES = (".csv", ".jsonl")
COLUMNS = ("file", "caption")
MOVING = (".gif", ".webp", ".apng")  # pictures that may be clips
NAMED = 5  # files that a message names


@dataclass(frozen=True)
class Captioned:
    """A clip or a picture, and the ways to say what it shows, at least one."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CheckedFile:
    """What a file holds: width and height in pixels as it is shown, frames (1: a picture)."""

    file: Captioned
    width: int
    height: int
    frames: int


def find_captioned(folder: Path) -> list[Captioned]:
    """All of a folder, in the order of their names. ValueError for an empty one, and for what has no caption."""
    if not folder.is_dir():
        raise ValueError(f"--data {folder}: not a folder; wanted one of clips or pictures with captions")
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
    if len(tables) > 1:
        raise ValueError(f"--data {folder}: {_some(tables)}: wanted one table of captions, not {len(tables)}")
    if tables:
        return _of_table(folder, tables[0])
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (*VIDEOS, *PICTURES))
    if not files:
        raise ValueError(f"--data {folder}: holds no clips or pictures ({', '.join((*VIDEOS, *PICTURES))})")
    texts = {path: path.with_suffix(".txt") for path in files}
    if silent := [path for path, text in texts.items() if not _caption(text)]:
        raise ValueError(
            f"--data {folder}: {len(silent)} of {len(files)} files have no caption: {_some(silent)}. Write what each "
            "shows into a .txt file of the same name beside it, or all into one captions.csv with the columns file "
            "and caption"
        )
    return [Captioned(path, (_caption(text),)) for path, text in texts.items()]


def _caption(text: Path) -> str:
    if not text.is_file():
        return ""
    try:
        return text.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{text}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _of_table(folder: Path, table: Path) -> list[Captioned]:
    captions: dict[Path, list[str]] = {}
    for number, row in _rows(table):
        if other := sorted(set(map(str, row)) - set(COLUMNS)) or set(COLUMNS) - set(row):
            raise ValueError(
                f"{table}, row {number}: wanted the columns {' and '.join(COLUMNS)}, got {', '.join(map(str, row))}"
                f"{'; unknown: ' + ', '.join(other) if isinstance(other, list) else ''}"
            )
        path, caption = folder / str(row["file"]), str(row["caption"] or "").strip()
        if not path.is_file():
            raise ValueError(f"{table}, row {number}: no file {path}")
        if path.suffix.lower() not in (*VIDEOS, *PICTURES):
            raise ValueError(f"{table}, row {number}: {path.name} is neither a clip nor a picture by its ending")
        if not caption:
            raise ValueError(f"{table}, row {number}: {path.name} has no caption")
        captions.setdefault(path, []).append(caption)
    if not captions:
        raise ValueError(f"{table}: holds no rows; wanted one per clip or picture, with {' and '.join(COLUMNS)}")
    return [Captioned(path, tuple(said)) for path, said in sorted(captions.items())]


def _rows(table: Path):
    """(row number as an editor counts, the row as an object)."""
    text = table.read_text(encoding="utf-8-sig")
    if table.suffix.lower() == ".csv":
        yield from enumerate(csv.DictReader(text.splitlines(), restkey="(more)"), 2)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{table}, row {number}: no JSON ({error}): {shown(line)}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{table}, row {number}: wanted an object with {' and '.join(COLUMNS)}, got {shown(line)}")
        yield number, row


def check_files(files: list[Captioned], least: int) -> list[CheckedFile]:
    """Those that can be read; what cannot is named and passed over. least: frames of a chunk.

    ValueError where none can be read, and for clips shorter than a chunk.
    """
    found = []
    for file in files:
        try:
            about = probe(file.path)
        except UNREADABLE as error:
            tell_skipped(file.path, error)
            continue
        still = file.path.suffix.lower() in PICTURES and (about.frames == 1 or file.path.suffix.lower() not in MOVING)
        found.append(CheckedFile(file, about.width, about.height, 1 if still else about.frames))
    if not found:
        raise ValueError(f"none of the {len(files)} files can be read; the first is {files[0].path}")
    if short := [one for one in found if 1 < one.frames < least or (one.frames == 1 and is_video(one))]:
        named = [f"{one.file.path.name} ({one.frames})" for one in short]
        raise ValueError(
            f"{len(short)} clips have fewer than the {least} frames of a chunk: {_some(named)}. Give longer ones, take "
            "them out, or save a frame of each as a picture"
        )
    return found


def is_video(one: CheckedFile) -> bool:
    """Whether a file is a clip by its ending."""
    return one.file.path.suffix.lower() in VIDEOS


def tell_skipped(path: Path, error: Exception) -> None:
    """Names a file that cannot be read, once."""
    why = error if str(path) in str(error) else f"{path}: {error}"
    print(f"skipped {why}", file=sys.stderr, flush=True)


def _some(names: list) -> str:
    texts = [getattr(name, "name", str(name)) for name in names]
    return ", ".join(texts[:NAMED]) + (f" and {len(texts) - NAMED} more" if len(texts) > NAMED else "")
