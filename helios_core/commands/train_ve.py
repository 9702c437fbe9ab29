"""`helios train ve`: a VAE whose latents bear noise, from nothing or from one that is there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import folders, open_part
from .settings import DATA_HELP, FromFile, absolute, fingerprint, not_in_vain, note_output


@dataclass(frozen=True)
class VESettings(FromFile):
    """How the VAE is trained; see HELPS."""

    term: str = "ve"
    weight: float = 0.1
    size_weight: float = 1e-6
    delta: float = 1e-4
    start: str = "balance"
    decoder: int = 0
    latents: str = "auto"
    base_dim: int = 32
    size: int = 64
    frames: int = 1
    batch: int = 16
    steps: int = 4000
    lr: float = 0.0
    decay: float = 1.0
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    save_every: int = 200
    log_every: int = 20


HELPS = {
    "term": "ve, scale-free (ve over the latents' own spread), kl or log-variance",
    "weight": "of the term, beside a sum of squared errors over pixels; for ve the paper's lambda_1",
    "size_weight": "of exp(|z| - 1), which keeps latents from growing; the paper's lambda_2",
    "delta": "ve is weight / (sigma^2 + delta): bounds the pull of a collapsed posterior",
    "start": "of a fine-tuning. balance: the posterior's noise starts where it is expected to end; own: where it is",
    "decoder": "1: in a fine-tuning the decoder learns too, and video models of the old latents no longer fit",
    "latents": "their means and spreads, by which a video model reads them: keep those of --vae, measure new ones, or "
    "auto: keep while the decoder is fixed",
    "base_dim": "width of a new VAE; the published one has 96",
    "size": "pixels to a side of the crops that are trained on",
    "frames": "of a crop: 1, or 1 + a multiple of 4 for the folder's videos",
    "batch": "crops in a step of each process",
    "steps": "optimiser steps",
    "lr": "learning rate; 0 is 1e-3 for a new VAE and 2.5e-5 for a fine-tuning",
    "decay": "the share of the steps, at the end, over which the learning rate falls",
    "clip": "largest norm of all gradients together: one batch with a strong pull cannot undo many others",
    "ema": "of the weights that are kept",
    "seed": "of crops, noise and a new VAE's weights",
    "save_every": "steps between checkpoints; what was trained since the last is lost when the run is killed",
    "log_every": "steps between lines of the log",
}


ABOUT = (
    "Trains a VAE with the Variance Expansion loss (arXiv 2603.21085); goes on where a run was stopped or killed. "
    "Under torchrun several GPUs train together: torchrun --nproc-per-node 4 -m helios_video.helios_core.cli train ve"
)


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = VESettings.parser("helios train ve", ABOUT, folder="ve-run", output="ve-vae.safetensors", helps=HELPS)
    made.add_argument("--data", type=Path, required=True, metavar="FOLDER", help=DATA_HELP)
    made.add_argument("--vae", metavar="FILE", help="the VAE to fine-tune, or a checkpoint's folder; else a new one")
    return made


def find_vae(name: str | None) -> Path | None:
    """A VAE's file or a checkpoint's folder; helios-tiny stands for its own."""
    from ..pipeline import TINY

    return TINY if name == folders.TINY and not Path(name).exists() else folders.find_file("vae", name)


def train(argv: list[str]) -> int:
    """Trains and reports. ValueError for what cannot be, before any training."""
    args = parser().parse_args(argv)
    vae = find_vae(args.vae)
    of = {"data": absolute(args.data), "vae": fingerprint(open_part(vae, "vae").files) if vae else "a new one"}
    with not_in_vain(args.folder):
        settings = VESettings.begin(args, ["ve.pt"], lambda _: of)
        from ..training.ve import run

        found = run.run(settings, vae, args.data, args.folder, args.output, device=args.device)
    if found:
        note_output(args.folder, args.output)
    for name in found.get("before", ()):
        print(f"{name:24}{found['before'][name]:>10.3f} -> {found['after'][name]:.3f}")
    if found:
        print(args.output)
    return 0
