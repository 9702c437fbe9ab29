"""`helios train ul-decoder`: a diffusion decoder for the latents of a checkpoint's VAE."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .settings import FromFile


@dataclass(frozen=True)
class Settings(FromFile):
    """The defaults are the recipe of helios-tiny's decoder; see HELPS."""

    model: str = "helios-tiny"
    data: str = "drawn"
    sizes: str = "helios-tiny"
    size: int = 64
    latents: int = 9
    clips: int = 400
    batch: int = 2
    steps: int = 6000
    lr: float = 1e-3
    decay: float = 0.6
    ema: float = 0.998
    tested: int = 16
    save_every: int = 200
    log_every: int = 20


HELPS = {
    "model": "the checkpoint whose VAE made the latents: helios-tiny, a folder, or a file",
    "data": "a folder of videos, or drawn: moving shapes, as helios-tiny was trained on",
    "sizes": "of the decoder: a preset's name, or a .json file",
    "size": "pixels to a side of the crops from a folder",
    "latents": "of a clip; 9 is a chunk of Helios",
    "clips": "that are encoded once and trained on",
    "batch": "clips in a step of each process",
    "steps": "optimiser steps",
    "decay": "the share of the steps, at the end, over which the learning rate falls",
    "ema": "of the weights that are kept",
    "tested": "clips of the table",
    "save_every": "steps between checkpoints",
    "log_every": "steps between lines of the log",
}


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = argparse.ArgumentParser(
        prog="helios train ul-decoder",
        description="Trains a diffusion decoder for a VAE's latents (Unified Latents, the decoder alone) and sets it "
        "beside that VAE. Goes on where a run was stopped.",
    )
    made.add_argument("--config", type=Path, metavar="JSON", help="settings; options given here count more")
    made.add_argument(
        "--folder", type=Path, default=Path("ul-decoder-run"), help="clips, checkpoint, log, table, sheet"
    )
    made.add_argument("-o", "--output", type=Path, default=Path("ul-decoder.safetensors"), metavar="FILE")
    Settings.add_options(made, HELPS)
    made.add_argument("--device", default="auto", help="auto: a GPU where there is one")
    made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return made


def train(argv: list[str]) -> int:
    """Runs every part that is not finished yet. ValueError for settings that cannot be, before any training."""
    from . import set_threads

    args = parser().parse_args(argv)
    settings = Settings.read(args.config, **Settings.given(args))
    set_threads(args.threads)
    from ..training import ul_decoder_run

    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "decoder-config.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    rows = ul_decoder_run.run(settings, args.folder, args.output, device=args.device)
    if rows:
        print(ul_decoder_run.table(rows), end="")
        print(args.output)
    return 0
