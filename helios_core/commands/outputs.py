"""Where commands write: never over what they read, and over another file only if that was asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..checkpoint import find_checkpoint, find_file, list_files
from ..disk import check_name, free_name, identity
from ..join import check_writable

# Options of every command that name something to be read, and the folder of models that a bare name is looked for in.
# Files, folders of them, or several of either.
READ = {
    "image": "",
    "video": "",
    "resume": "",
    "prompts_file": "",
    "timeline": "",
    "pictures": "",
    "workflow": "",
    "data": "",
    "config": "",
    "sizes": "",
    "lora_companion": "",
    "control": "",
    "model": "checkpoint",
    "source": "checkpoint",
    "vae": "vae",
    "text_encoder": "text_encoders",
    "lora": "loras",
    "control_adapter": "controlnet",
    "codec": "",
}
KEPT = {"save_history": ""}  # what is written beside the output, and read again


def read_files(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Option -> every file that it has read; of a folder, but one of --data, those below it. What is not there is left
    out."""
    for name, kind in {**READ, **KEPT}.items():
        given = getattr(args, name, None)
        for text in given if isinstance(given, (list, tuple)) else [given]:
            place = None if text is None else _find(str(text), kind)
            if place is not None:
                yield from (
                    (name, path) for path in (place.rglob("*") if place.is_dir() and name != "data" else [place])
                )


def _find(text: str, kind: str) -> Path | None:
    """The file or folder that an option's text stands for; None if none is there."""
    from .render import split_strength

    try:
        if kind == "checkpoint":
            place = find_checkpoint(text)
        elif kind == "loras":
            known = list_files("loras")
            name = split_strength(text, known)[0]
            place = known.get(name, Path(name))
        else:
            place = find_file(kind, text) if kind else Path(text)
        return Path(place) if place is not None and Path(place).exists() else None
    except (OSError, ValueError):  # what is wrong with it is told where it is opened
        return None


def check_apart(outputs: Path | Iterable[Path], args: argparse.Namespace) -> None:
    """ValueError if an output is one of the files that the arguments name to be read, by whatever path."""
    outputs = [outputs] if isinstance(outputs, (str, os.PathLike)) else list(outputs)
    places = {place: Path(out) for out in outputs if (place := identity(out)) is not None}
    if not places:
        return
    for name, path in read_files(args):
        if (out := places.get(identity(path))) is not None:
            option = {"pictures": "the list of pictures", "workflow": "the workflow", "source": "IN"}.get(
                name, f"--{name.replace('_', '-')}"
            )
            raise ValueError(f"{out} is what {option} reads; name another output")


def check_report(folder: Path, names: Iterable[str]) -> None:
    """ValueError where files of a report would replace others than those of an earlier report, which are all there."""
    there = [folder / name for name in names if (folder / name).exists()]
    if there and len(there) < len(list(names)):
        raise ValueError(f"{there[0]} is there already and is no report of this command; choose another -o")


def choose_output(args: argparse.Namespace) -> Path:
    """--output, or the next free name if there is a file and no --overwrite, which is said on stderr.

    ValueError, before any work, where it cannot be written, and for --overwrite of a file that this run reads.
    """
    check_name(Path(args.output).name)
    out = check_writable(args.output)
    if args.overwrite:
        check_apart(out, args)
        return out
    free = check_writable(free_name(out))
    if free != out:
        hint = "" if args.command == "retake" else " (--overwrite replaces the old one)"
        print(f"{out} is there already; this video becomes {free}{hint}", file=sys.stderr)
    return free
