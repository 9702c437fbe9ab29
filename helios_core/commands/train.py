"""`helios train tiny`: VAE, transformer with text encoder, then the distilled student and its checkpoint folder."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

from .settings import FromFile, not_in_vain, note_output


@dataclass(frozen=True)
class TinySettings(FromFile):
    """What a run is made with; the defaults are the recipe of the weights that ship.

    Steps are optimiser steps; shards hold 50 training clips each; lesson rounds are batches of the teacher's videos;
    decay: the share of the steps, at their end, over which the learning rates fall.
    """

    growing: ClassVar[tuple[str, ...]] = ("distil_steps",)  # all else is what later parts were made from
    vae_steps: int = 1500
    polish_steps: int = 600
    shards: int = 26
    steps: int = 5600
    decay: float = 0.15
    lesson_rounds: int = 52
    distil_steps: int = 900


def parser() -> argparse.ArgumentParser:
    """The command's own options; the defaults made the weights that ship."""
    about = "Trains helios-tiny from nothing; goes on where a run was stopped or killed."
    made = TinySettings.parser("helios train tiny", about, folder="tiny-run", output="helios-tiny")
    made.add_argument("--compile", action="store_true", help="through torch.compile: a fifth faster, needs a compiler")
    return made


def train(argv: list[str]) -> int:
    """Runs every part that is not finished yet. ValueError for settings that cannot be, before any training."""
    args = parser().parse_args(argv)
    with not_in_vain(args.folder):
        settings = TinySettings.begin(args, ["vae.pt"])
        from ..training.tiny import run

        run.run(settings, args.folder, args.output, device=args.device, compiled=args.compile)
    note_output(args.folder, args.output)
    print(args.output)
    return 0
