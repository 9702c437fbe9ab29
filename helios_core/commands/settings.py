"""Settings of a training: a frozen dataclass, from a JSON file and from options of the same names."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import ClassVar

from . import set_threads

KINDS = {"int": int, "float": float, "str": str}
DATA_HELP = (
    "images or videos, in any depth; or drawn: videos of helios-tiny's vocabulary; or photos: the photographs that "
    "scikit-image and scikit-learn bring, without a fifth to test on"
)


class FromFile:
    """What reads a dataclass of numbers and texts, each with a default. signed: numbers that may be below 0."""

    signed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, file: Path | None, **given):
        """Of a JSON file, with what the command line gives on top. ValueError for what is unknown or no number."""
        text = {} if file is None else _read_json(file, asdict(cls()))
        values = text | {name: value for name, value in given.items() if value is not None}
        kinds = {f.name: f.type for f in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise ValueError(f"--config: unknown {', '.join(unknown)}; known are {', '.join(kinds)}")
        for name, value in values.items():
            _check(name, value, kinds[name], name in cls.signed)
        return replace(cls(), **values)

    @classmethod
    def parser(cls, prog: str, description: str, *, folder: str, output: str | None, helps=None):
        """A training command's options. folder, output: where it works and what it writes if nothing else is said."""
        made = argparse.ArgumentParser(prog=prog, description=description)
        made.add_argument("--config", type=Path, metavar="JSON", help="settings; options given here count more")
        made.add_argument("--folder", type=Path, default=Path(folder), help=f"checkpoints, logs, curves ({folder})")
        made.add_argument("-o", "--output", type=Path, default=output and Path(output), help=f"to write ({output})")
        cls.add_options(made, helps)
        made.add_argument("--device", default="auto", help="auto: a GPU where there is one")
        made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
        return made

    @classmethod
    def begin(cls, args: argparse.Namespace, name: str = "config.json"):
        """The settings of a run, written into its folder as `name`, which is made. ValueError before that."""
        settings = cls.read(args.config, **cls.given(args))
        set_threads(args.threads)
        args.folder.mkdir(parents=True, exist_ok=True)
        (args.folder / name).write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
        return settings

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser, helps: dict[str, str] | None = None) -> None:
        """An option per field; helps: what to say of some."""
        for field in fields(cls):
            text = (helps or {}).get(field.name, "")
            text = f"{text} (default: {field.default})" if text else f"default {field.default}"
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=KINDS[field.type], help=text)

    @classmethod
    def given(cls, args: argparse.Namespace) -> dict:
        """What the options say."""
        return {field.name: getattr(args, field.name) for field in fields(cls)}


def _check(name: str, value, kind: str, signed: bool) -> None:
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError(f"--config: {name} must be a text, got {value!r}")
        return
    if type(value) not in (int, float) or (value < 0 and not signed) or (kind == "int" and value != int(value)):
        wanted = f"a{'n' if kind == 'int' else ''} {kind}" if signed else f"a positive {kind} or 0"
        raise ValueError(f"--config: {name} must be {wanted}, got {value!r}")


def _read_json(file: Path, example: dict) -> dict:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--config {file}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"--config {file}: wanted a JSON object such as {json.dumps(example)}")
    return found
