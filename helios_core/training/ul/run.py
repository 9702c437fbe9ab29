"""One stage of Unified Latents on a folder: data, training, figures, a sheet, and the file that inference reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from ...backends.torch.ul import UL, load_ul
from ...disk import write
from ...ul import DecodePlan, ULFile, open_file
from ..crops import Crops
from ..data import open_data
from ..files import save_ul
from ..loop import Recipe, join, rank
from . import presets, report, stages

SEEN = 8  # pictures in the sheet
EVALUATION = 10**6  # the step whose draws the figures are made of; no training gets there


def leave() -> None:
    """Ends the group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def run(settings, stage: int, data: Path, folder: Path, output: Path, *, codec: Path | None, device: str) -> dict:
    """settings: `commands.train_ul.ULSettings`; codec: stage 1's file, for stage 2. Returns the figures of the report.

    ValueError, before any training, for data or sizes that do not fit.
    """
    file = check_codec(stage, codec)
    config = file.config if file else presets.find(settings.model)
    check_sizes(config, settings, stage)
    crops = open_data(data, size=settings.size, frames=settings.frames)
    place = join(device)
    try:
        torch.manual_seed(0)
        model = UL(config, ("encoder", "prior", "decoder") if stage == 1 else ("base",))
        stages.initialise(model)
        figures = (train_one if stage == 1 else train_two)(model.to(place), settings, crops, folder, file)
        if rank() == 0:
            write(folder / f"stage{stage}.json", json.dumps(figures, indent=1) + "\n")
            save_ul(model, output, steps=settings.steps, dtype=torch.float16)
    finally:
        leave()
    return figures


def check_codec(stage: int, codec: Path | None) -> ULFile | None:
    """The file of stage 1 that stage 2 needs, and only it. ValueError without it, and for stage 1 with one."""
    if (stage == 2) != (codec is not None):
        raise ValueError("stage 2 needs --codec, the file that stage 1 wrote; stage 1 takes none")
    file = open_file(codec) if codec else None
    if file:
        file.narrow(("encoder", "decoder"))
    return file


def check_sizes(config, settings, stage: int) -> None:
    """ValueError unless crops fill whole latents, and the base's second level whole pairs of them."""
    config.latents(settings.frames)
    levels = len(config.base_channels) - 1 if stage == 2 else 0
    multiple = config.stride[1] * 2**levels
    if settings.size < multiple or settings.size % multiple:
        raise ValueError(f"--size {settings.size}: wanted a multiple of {multiple} pixels for this model")


def recipe(settings) -> Recipe:
    """Of the settings of `train ul` and `train ul-decoder`."""
    return Recipe(
        steps=settings.steps, lr=settings.lr, decay=settings.decay, warmup=min(settings.steps // 20 + 1, 1000),
        weight_decay=0.0, ema=settings.ema, save_every=settings.save_every, log_every=settings.log_every,
    )  # fmt: skip


def train_one(model: UL, settings, crops: Crops, folder: Path, _) -> dict:
    """The codec, its figures on fresh crops, and a sheet: source, one step, many steps."""
    terms = stages.Terms(settings.loss_factor, settings.bias, settings.even)
    stages.train_codec(model, crops, terms, recipe(settings), folder / "stage1.pt", batch=settings.batch)
    if rank():
        return {}
    frames = fresh(crops, model)
    z0 = report.noisy_latents(model, report.encode(model, frames))
    rows = {"source": frames}
    rows |= {
        f"{n} step{'s' if n > 1 else ''}": report.show(model, z0, DecodePlan(steps=n), noisy=True) for n in (1, 4, 20)
    }
    report.save_sheet(rows, folder / "stage1-sheet.png")
    return report.measure(model, frames)


def train_two(model: UL, settings, crops: Crops, folder: Path, file: ULFile) -> dict:
    """The base of a frozen codec, and a sheet of what it samples."""
    codec = load_ul(file, ("encoder", "decoder"), device=model.like.device)
    terms = {"bias": settings.base_bias, "batch": settings.batch}
    stages.train_base(model, codec.encoder, crops, recipe(settings), folder / "stage2.pt", **terms)
    if rank():
        return {}
    frames = fresh(crops, model)
    shape = report.encode(codec, frames).shape
    z0 = report.draw_latents(model, tuple(shape))
    rows = {"samples": report.show(codec, z0, report.MANY, noisy=True), "training data": frames}
    report.save_sheet(rows, folder / "stage2-sheet.png")
    return {"z0_std": float(z0.std()), "z0_std_of_data": float(noisy_std(codec, frames))}


def noisy_std(codec: UL, frames: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the frames' z_0."""
    return report.noisy_latents(codec, report.encode(codec, frames)).std()


def fresh(crops: Crops, model: UL) -> torch.Tensor:
    """Crops that no step of the training drew."""
    return crops.batch(np.random.default_rng((EVALUATION, 0)), SEEN).to(model.like.device)
