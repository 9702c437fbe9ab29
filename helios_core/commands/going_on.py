"""A stopped run goes on: what a journal holds of a command line, `helios resume`, and what is said of both."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import cache_folder
from ..control import find_adapter
from ..disk import Journal, Store, beside, digest, fingerprint, identity, journal
from ..disk.safe_files import numbered
from ..join import read_metadata

# Options that say where, with what or how fast, and change no frame.
NO_SETTING = ("command", "line", "output", "threads", "gpus", "live", "pictures", "split_guidance", "shard", "ray")
NO_SETTING += ("actors",)
FREE = (*NO_SETTING, "overwrite", "offload", "no_prompt_cache", "save_history", "prompts_file")
GO_ON = ("generate", "retake", "run")  # commands that do; a folder may come from anybody
FILES = ("image", "video", "resume", "control")  # whose content counts, not the name alone


def settings_of(args: argparse.Namespace) -> dict:
    """The options of a video, as its file holds them."""
    return {name: value for name, value in vars(args).items() if name not in NO_SETTING}


def command_again(args: argparse.Namespace, option: str) -> list[str]:
    """The command line of a run that goes on, from wherever; option: what says where it writes. Empty without one."""
    place = f"--{option.replace('_', '-')}={Path(getattr(args, option)).absolute()}"
    line = getattr(args, "line", [])
    return [*(word for word in line if word != place), place] if line else []


@contextmanager
def going_on(args: argparse.Namespace, settings: dict) -> Iterator[Journal]:
    """The journal of the video that the arguments ask for. ValueError if its folder is another run's, live or stopped.

    Says on stderr what an earlier run left finished, and what this one leaves if it is stopped.
    """
    made = Journal.begin(folder_of(args.output), settings, getattr(args, "line", []), finished_chunks())
    if made.went_on:
        print(f"going on in {made.root}: {journal.told(made.went_on)} there", file=sys.stderr)
    try:
        yield made
    finally:
        if left := made.close():
            print(left, file=sys.stderr)


def finished_chunks() -> Store | None:
    """The store of finished chunks that runs share, for retakes; None where HELIOS_CACHE is off."""
    folder = cache_folder()
    return None if folder is None else Store(folder / "chunks")


def depends_on(args: argparse.Namespace, model) -> dict:
    """What the video depends on, by name."""
    settings = {name: value for name, value in vars(args).items() if name not in FREE}
    kept = None if args.save_history is None else identity(args.save_history)
    for name in FILES:
        path = getattr(args, name)
        if path is not None and identity(path) != kept:  # a history that the run itself goes on writing
            settings[f"{name}'s content"] = fingerprint(Path(path))
    if args.control is not None:
        settings["the control adapter's content"] = fingerprint(find_adapter(args.control_adapter))
    settings["the model's files and numbers"] = digest(model.parts.identity, model.parts.vae_identity)[:12]
    return json.loads(json.dumps(settings))


class Through(NamedTuple):
    """A run that was killed when its video was written: the video, and its settings."""

    video: Path
    settings: dict


def through(output: str) -> Through | None:
    """Such a run of an output's folder, which is cleared away."""
    root = journal.place(folder_of(output))
    head = journal.read_head(root)
    if head is None:
        journal.clear_rest(root)
        return None
    mark = journal.mark(head["settings"])
    found = next((path for path in _written(Path(output)) if _mark_of(path) == mark), None)
    return Through(found, head["settings"]) if found is not None and journal.clear_away(root) else None


def _written(path: Path) -> Iterator[Path]:
    return takewhile(os.path.lexists, numbered(path))


def _mark_of(path: Path) -> str | None:
    try:
        held = read_metadata(path).get("helios")
    except (OSError, ValueError):
        return None
    return held.get("run") if isinstance(held, dict) else None


def folder_of(output: str) -> Path:
    """The folder of the chunks of a video."""
    return beside(Path(output), "_chunks")


def resumed(folder: str) -> list[str]:
    """The arguments of `helios` that go on with the run in a folder; moves to where it was begun. ValueError if there
    is none, or if it is no longer there."""
    root = Path(folder)
    head = journal.read_head(root)
    if head is None:
        raise ValueError(f"{root} holds no run that was stopped; name the folder that the run said, such as out_chunks")
    if not head["again"]:
        raise ValueError(f"the run in {root} was not begun by a command; begin it again as it was begun")
    if head["again"][0] not in GO_ON or not all(isinstance(word, str) for word in head["again"]):
        raise ValueError(f"the run in {root} was begun by {head['again'][0]!r}; wanted one of {', '.join(GO_ON)}")
    if identity(head["root"]) != identity(root):
        raise ValueError(f"{root} was {head['root']} when its run was begun; move it back, for its chunks belong there")
    with suppress(OSError):
        os.chdir(head["in"])
        return head["again"]
    raise ValueError(f"the run in {root} was begun in {head['in']}, which is not there; begin it again from its files")
