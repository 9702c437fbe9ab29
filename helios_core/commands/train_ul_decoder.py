"""`helios train ul-decoder`: a diffusion decoder for the latents of a checkpoint's VAE."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import folders, open_part
from ..pipeline import TINY
from .settings import FromFile, fingerprint, not_in_vain, note_output


@dataclass(frozen=True)
class ULDecoderSettings(FromFile):
    """The defaults are the recipe of helios-tiny's decoder; see HELPS."""

    model: str = "helios-tiny"
    data: str = "drawn"
    sizes: str = "helios-tiny"
    size: int = 64
    latents: int = 9
    clips: int = 400
    batch: int = 2
    steps: int = 2800
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


ABOUT = (
    "Trains a diffusion decoder for a VAE's latents (Unified Latents, the decoder alone) and sets it beside that VAE. "
    "Goes on where a run was stopped."
)


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    places = {"folder": "ul-decoder-run", "output": "ul-decoder.safetensors"}
    return ULDecoderSettings.parser("helios train ul-decoder", ABOUT, helps=HELPS, **places)


def made_of(settings: ULDecoderSettings) -> dict[str, str]:
    """Beside the settings, what the decoder depends on: the checkpoint's VAE. ValueError if there is none."""
    model = TINY if settings.model == folders.TINY else Path(settings.model)
    return {"vae": fingerprint(open_part(model, "vae").files)}


def train(argv: list[str]) -> int:
    """Runs every part that is not finished yet. ValueError for settings that cannot be, before any training."""
    args = parser().parse_args(argv)
    with not_in_vain(args.folder):
        settings = ULDecoderSettings.begin(args, ["decoder.pt", "clips_*"], made_of, name="decoder-config.json")
        from ..training.ul import decoder_run

        rows = decoder_run.run(settings, args.folder, args.output, device=args.device)
    if rows:
        note_output(args.folder, args.output)
        print(decoder_run.table(rows), end="")
        print(args.output)
    return 0
