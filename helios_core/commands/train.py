"""`helios train tiny`: VAE, transformer with text encoder, then the distilled student and its checkpoint folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a run is made with; the defaults are the recipe of the weights that ship.

    Steps are optimiser steps; shards hold 50 training clips each; lesson rounds are batches of the teacher's videos;
    decay: the share of the steps, at their end, over which the learning rates fall.
    """

    vae_steps: int = 1500
    polish_steps: int = 1600
    shards: int = 26
    steps: int = 5600
    decay: float = 0.15
    lesson_rounds: int = 48
    distil_steps: int = 1200

    @classmethod
    def read(cls, file: Path | None, **given) -> Settings:
        """Of a JSON file, with what the command line gives on top. ValueError for what is unknown or no number."""
        text = {} if file is None else _read_json(file)
        values = text | {name: value for name, value in given.items() if value is not None}
        kinds = {f.name: f.type for f in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise ValueError(f"--config: unknown {', '.join(unknown)}; known are {', '.join(kinds)}")
        for name, value in values.items():
            if type(value) not in (int, float) or value < 0 or (kinds[name] == "int" and value != int(value)):
                raise ValueError(f"--config: {name} must be a positive {kinds[name]} or 0, got {value!r}")
        return replace(cls(), **values)


def _read_json(file: Path) -> dict:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--config {file}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"--config {file}: wanted a JSON object such as {json.dumps(asdict(Settings()))}")
    return found


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = argparse.ArgumentParser(prog="helios train tiny", description="Trains helios-tiny from nothing; resumes.")
    made.add_argument("--config", type=Path, metavar="JSON", help="settings; the defaults made the weights that ship")
    made.add_argument("--folder", type=Path, default=Path("tiny-run"), help="checkpoints, logs, curves, training clips")
    made.add_argument("-o", "--output", type=Path, default=Path("helios-tiny"), help="the checkpoint folder to write")
    for field in fields(Settings):
        kind = {"int": int, "float": float}[field.type]
        made.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=f"default {field.default}")
    made.add_argument("--device", default="auto", help="auto: a GPU where there is one")
    made.add_argument("--compile", action="store_true", help="through torch.compile: a fifth faster, needs a compiler")
    made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return made


def train(argv: list[str]) -> int:
    """Runs every part that is not finished yet. ValueError for settings that cannot be, before any training."""
    from . import set_threads

    args = parser().parse_args(argv)
    settings = Settings.read(args.config, **{f.name: getattr(args, f.name) for f in fields(Settings)})
    set_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    from ..training import tiny_run

    tiny_run.run(settings, args.folder, args.output, device=args.device, compiled=args.compile)
    print(args.output)
    return 0
