"""`helios train tiny`: VAE, transformer with text encoder, then the distilled student and its checkpoint folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .settings import FromFile


@dataclass(frozen=True)
class Settings(FromFile):
    """What a run is made with; the defaults are the recipe of the weights that ship.

    Steps are optimiser steps; shards hold 50 training clips each; lesson rounds are batches of the teacher's videos;
    decay: the share of the steps, at their end, over which the learning rates fall.
    """

    vae_steps: int = 1500
    polish_steps: int = 600
    shards: int = 26
    steps: int = 5600
    decay: float = 0.15
    lesson_rounds: int = 52
    distil_steps: int = 500


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = argparse.ArgumentParser(prog="helios train tiny", description="Trains helios-tiny from nothing; resumes.")
    made.add_argument("--config", type=Path, metavar="JSON", help="settings; the defaults made the weights that ship")
    made.add_argument("--folder", type=Path, default=Path("tiny-run"), help="checkpoints, logs, curves, training clips")
    made.add_argument("-o", "--output", type=Path, default=Path("helios-tiny"), help="the checkpoint folder to write")
    Settings.add_options(made)
    made.add_argument("--device", default="auto", help="auto: a GPU where there is one")
    made.add_argument("--compile", action="store_true", help="through torch.compile: a fifth faster, needs a compiler")
    made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return made


def train(argv: list[str]) -> int:
    """Runs every part that is not finished yet. ValueError for settings that cannot be, before any training."""
    from . import set_threads

    args = parser().parse_args(argv)
    settings = Settings.read(args.config, **Settings.given(args))
    set_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    from ..training import tiny_run

    tiny_run.run(settings, args.folder, args.output, device=args.device, compiled=args.compile)
    print(args.output)
    return 0
