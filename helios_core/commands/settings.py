"""Settings of a training: a frozen dataclass, from a JSON file and from options of the same names.

A training goes on from what lies in its folder, so the folder belongs to the settings that made it: they are written
there, with what else the result depends on, and a run with others is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from math import isfinite
from pathlib import Path
from typing import ClassVar

from ..disk import check_folder, check_name, write
from ..disk import fingerprint as states
from ..disk import read_json_text as read
from ..measure import figures
from . import Parser, set_threads
from .outputs import check_apart

TYPES = {"int": int, "float": float, "str": str}
OUTPUTS = "helios-outputs.json"  # in the folder: files that it has written or is about to
INPUTS = "made of"  # in the file of settings: what else the result depends on
DATA = ("drawn", "photos")  # of --data: what needs no folder
DATA_HELP = (
    "images or videos, in any depth; or drawn: videos of helios-tiny's vocabulary; or photos: the photographs that "
    "scikit-image and scikit-learn bring, without a fifth to test on"
)


class FromFile:
    """What reads a dataclass of numbers and texts, each with a default.

    signed: numbers that may be below 0; free: what changes no result; growing: what a later run may have more of.
    """

    signed: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ("save_every", "log_every")
    growing: ClassVar[tuple[str, ...]] = ("steps",)

    @classmethod
    def read(cls, file: Path | None, **given):
        """Of a JSON file, with what the command line gives on top. ValueError for what is unknown or no number."""
        text = {} if file is None else _read_json(file, asdict(cls()))
        values = {name: value for name, value in text.items() if name != INPUTS}
        values |= {name: value for name, value in given.items() if value is not None}
        types = {f.name: f.type for f in fields(cls)}
        if unknown := sorted(set(values) - set(types)):
            raise ValueError(f"--config: unknown {', '.join(unknown)}; known are {', '.join(types)}")
        for name, value in values.items():
            _check(name, value, types[name], name in cls.signed)
        return replace(cls(), **values)

    @classmethod
    def parser(cls, prog: str, description: str, *, folder: str, output: str | None, helps=None):
        """A training command's options. folder, output: where it works and what it writes if nothing else is said."""
        made = Parser(prog=prog, description=description)
        made.add_argument("--config", type=Path, metavar="JSON", help="settings; options given here count more")
        made.add_argument("--folder", type=Path, default=Path(folder), help=f"checkpoints, logs, curves ({folder})")
        made.add_argument("-o", "--output", type=Path, default=output and Path(output), help=f"to write ({output})")
        cls.add_options(made, helps)
        made.add_argument("--device", default="auto", help="auto: a GPU where there is one")
        made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
        return made

    @classmethod
    def begin(cls, args: argparse.Namespace, makes: Iterable[str], of: Callable | None = None, *, name="config.json"):
        """The settings of a run, written into its folder as `name`, which is made.

        makes: patterns of what the training keeps there; of: settings -> {name: text}, what else the result depends on.
        ValueError, before anything is written, for settings that cannot be or are not those of the folder, for places
        that cannot be written to, and for an output that is there and not by this training.
        """
        settings = cls.read(args.config, **cls.given(args))
        check_name(args.output.name)
        check_apart(args.output, args)
        if (data := getattr(args, "data", None)) is not None and str(data) not in DATA and not Path(data).is_dir():
            raise ValueError(f"--data {data}: not a folder; wanted one of images or videos")
        record = asdict(settings) | {INPUTS: _named_files(settings) | (of(settings) if of else {})}
        set_threads(args.threads)
        figures.require()
        check_folder(args.folder)
        check_folder(args.output.absolute().parent)
        cls.check_owner(args.folder / name, record, makes)
        check_own(args.folder, args.output)
        args.folder.mkdir(parents=True, exist_ok=True)
        write(args.folder / name, json.dumps(record, indent=1) + "\n")
        note_output(args.folder, args.output, written=False)
        return settings

    @classmethod
    def check_owner(cls, file: Path, record: dict, makes: Iterable[str]) -> None:
        """ValueError where the file's folder holds what a run of other settings made. Before anything is made, they
        bind nobody."""
        made = [found for pattern in makes for found in file.parent.glob(pattern)]
        if not made:
            if file.is_file() and INPUTS not in _read_json(file, record):
                raise ValueError(f"{file} is there already and is no training's; take another --folder")
            return
        if not file.is_file():
            raise ValueError(f"{made[0]} is there, but not {file.name}, which says what made it; take another --folder")
        inputs = _read_json(file, record).get(INPUTS, {})
        if not isinstance(inputs, dict):
            raise ValueError(f"{file}: {INPUTS!r} should be an object, such as {json.dumps(record[INPUTS])}")
        held = asdict(cls.read(file)) | {INPUTS: inputs}
        before, now = (_flat(settings, cls.free) for settings in (held, record))
        grown = [name for name in cls.growing if now[name] > before[name]]
        other = [
            f"{name} was {before[name]}, is {value}"
            for name, value in now.items()
            if name not in grown and before.get(name, value) != value
        ]
        if other:
            raise ValueError(
                f"{file.parent} belongs to a training with other settings: {'; '.join(other)}. Take its own, which are "
                f"in {file.name}, or another --folder; only {' and '.join(cls.growing)} may grow"
            )

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser, helps: dict[str, str] | None = None) -> None:
        """An option per field; helps: what to say of some."""
        for field in fields(cls):
            text = (helps or {}).get(field.name, "")
            text = f"{text} (default: {field.default})" if text else f"default {field.default}"
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=TYPES[field.type], help=text)

    @classmethod
    def given(cls, args: argparse.Namespace) -> dict:
        """What the options say."""
        return {field.name: getattr(args, field.name) for field in fields(cls)}


def check_own(folder: Path, output: Path) -> None:
    """ValueError where something is at `output` that the training in the folder has not written."""
    there = _state(output)
    noted = _outputs(folder).get(str(output.absolute()))
    if there and noted != there and noted != "":
        raise ValueError(
            f"{output} exists already, and is not what the training in {folder} wrote; nothing is overwritten, choose "
            "another -o or remove it"
        )


def note_output(folder: Path, output: Path, *, written: bool = True) -> None:
    """Keeps in the folder that its training has written `output`, or is about to; of several processes the first
    does."""
    if os.environ.get("RANK", "0") != "0":
        return
    noted = _outputs(folder)
    noted[str(output.absolute())] = _state(output) if written else ""
    write(folder / OUTPUTS, json.dumps(noted, indent=1) + "\n")


def _outputs(folder: Path) -> dict[str, str]:
    found = read(folder / OUTPUTS) if (folder / OUTPUTS).is_file() else {}
    return found if isinstance(found, dict) else {}


def _state(output: Path) -> str:
    """A file, or a folder's files, in a few digits that change with them; empty where there is none."""
    files = [path for path in (output.rglob("*") if output.is_dir() else [output]) if path.is_file()]
    return states(*files) if files else ""


@contextmanager
def not_in_vain(folder: Path) -> Iterator[None]:
    """Inside, a run begins. Where it is refused before it has made anything, a folder made for it is removed again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except ValueError:
        files = sorted(folder.rglob("*")) if made else []
        if {path.suffix for path in files} == {".json"}:
            for path in files:
                path.unlink()
            for place in made:
                with suppress(OSError):  # somebody else's by now
                    place.rmdir()
        raise


def fingerprint(files: Iterable[Path]) -> str:
    """A few digits that change with any byte of the files. ValueError for one that is not there."""
    found = hashlib.sha256()
    for file in sorted(map(Path, files)):
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        with file.open("rb") as source:
            while part := source.read(1 << 24):
                found.update(part)
    return found.hexdigest()[:12]


def absolute(data: Path) -> str:
    """What `--data` names, the same from every folder."""
    return str(data) if str(data) in DATA else str(data.resolve())


def _named_files(settings) -> dict[str, str]:
    """Fingerprints of the files that settings name, such as sizes in a .json file."""
    values = {name: value for name, value in asdict(settings).items() if isinstance(value, str)}
    return {f"{name}, its content": fingerprint([value]) for name, value in values.items() if Path(value).is_file()}


def _flat(record: dict, free: tuple[str, ...]) -> dict:
    """Settings and inputs as one, without those that change no result."""
    return {name: v for name, v in (record | record.get(INPUTS, {})).items() if name not in (*free, INPUTS)}


def _check(name: str, value, type_name: str, signed: bool) -> None:
    if type_name == "str":
        if not isinstance(value, str):
            raise ValueError(f"--config: {name} must be a text, got {value!r}")
        return
    whole = type(value) is int or (type(value) is float and value.is_integer())
    number = whole or (type_name == "float" and type(value) is float and isfinite(value))
    if not number or (value < 0 and not signed):
        wanted = f"a{'n' if type_name == 'int' else ''} {type_name}" if signed else f"a positive {type_name} or 0"
        raise ValueError(f"--config: {name} must be {wanted}, got {value!r}")


def _read_json(file: Path, example: dict) -> dict:
    found = read(Path(file))
    if not isinstance(found, dict):
        raise ValueError(f"--config {file}: wanted a JSON object such as {json.dumps(example)}")
    return found
