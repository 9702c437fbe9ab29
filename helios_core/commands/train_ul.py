"""`helios train ul`: Unified Latents of a folder of images or videos, stage 1 (the codec) or 2 (the base model)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .settings import DATA_HELP, FromFile, absolute, fingerprint, not_in_vain, note_output


@dataclass(frozen=True)
class ULSettings(FromFile):
    """How a stage is trained; see HELPS. Stage 2 takes its sizes from the codec's file, not from `model`."""

    signed: ClassVar[tuple[str, ...]] = ("bias", "base_bias")
    model: str = "small"
    size: int = 64
    frames: int = 1
    batch: int = 16
    steps: int = 20000
    lr: float = 3e-4
    decay: float = 1.0
    ema: float = 0.999
    loss_factor: float = 1.5
    bias: float = 2.0
    even: float = 0.1
    base_bias: float = 0.0
    save_every: int = 500
    log_every: int = 50


HELPS = {
    "model": "sizes: tiny, small, paper, each also with -video, or a .json file of them",
    "size": "pixels to a side of the crops that are trained on",
    "frames": "of a crop; above 1 the folder's videos are read",
    "batch": "crops in a step of each process",
    "steps": "optimiser steps",
    "decay": "the share of the steps, at the end, over which the learning rate falls",
    "ema": "of the weights that are kept",
    "loss_factor": "what the decoder's loss counts beside the latents' bits: more of it, more bits and detail",
    "bias": "log signal-to-noise ratio above which the decoder's detail is discounted",
    "even": "weight of the decoder's loss that is spread over all noise levels, for decoding in one step; 0: the paper",
    "base_bias": "of stage 2, as bias",
    "save_every": "steps between checkpoints; what was trained since the last is lost when the run is killed",
    "log_every": "steps between lines of the log",
}


ABOUT = (
    "Trains Unified Latents (arXiv 2602.17270); goes on where a run was stopped or killed. Under torchrun several GPUs "
    "train together: torchrun --nproc-per-node 4 -m helios_video.helios_core.cli train ul"
)


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = ULSettings.parser("helios train ul", ABOUT, folder="ul-run", output=None, helps=HELPS)
    made.add_argument("--stage", type=int, choices=[1, 2], required=True, help="1: codec; 2: model of its latents")
    made.add_argument("--data", type=Path, required=True, metavar="FOLDER", help=DATA_HELP)
    made.add_argument("--codec", type=Path, metavar="FILE", help="for stage 2: what stage 1 wrote")
    return made


def train(argv: list[str]) -> int:
    """Runs one stage. ValueError for what cannot be, before any training."""
    args = parser().parse_args(argv)
    stage, of = f"stage{args.stage}", {"data": absolute(args.data)}
    if args.stage == 2 and args.codec:
        of["codec"] = fingerprint([args.codec])
    args.output = args.output or Path(f"ul-{'codec' if args.stage == 1 else 'base'}.safetensors")
    with not_in_vain(args.folder):
        settings = ULSettings.begin(args, [f"{stage}.pt"], lambda _: of, name=f"{stage}-config.json")
        from ..training.ul import run

        given = {"codec": args.codec, "device": args.device}
        figures = run.run(settings, args.stage, args.data, args.folder, args.output, **given)
    note_output(args.folder, args.output)
    for name, value in figures.items():
        print(f"{name} {value:.4f}")
    print(args.output)
    return 0
