"""The one training loop: AdamW, and Muon for the matrices of blocks; warm-up, plateau, cosine decay; an average of the
weights, a log, and checkpoints to resume from.
"""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..study.plots import line_plot


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train. Steps are optimiser steps.

    muon: learning rate for the matrices inside `blocks`; 0 leaves all to AdamW. decay: the share of the steps, at the
    end, over which the rates fall; a run is extended from any checkpoint of the plateau before it.
    """

    steps: int
    lr: float = 1e-3
    muon: float = 0.0
    decay: float = 1.0
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    save_every: int = 200
    log_every: int = 20

    def rate(self, step: int) -> float:
        """Share of the learning rates at a step: linear warm-up, plateau, then cosine to a fiftieth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        length = self.decay * (self.steps - self.warmup)
        part = (step - (self.steps - length)) / max(1, length)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, part))))


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon (Jordan et al. 2024) for the matrices of blocks and AdamW for the rest."""
    inner = [p for n, p in model.named_parameters() if recipe.muon and p.ndim == 2 and ".blocks." in n]
    chosen = set(map(id, inner))
    rest = [p for p in model.parameters() if id(p) not in chosen]
    made = [torch.optim.AdamW(rest, recipe.lr, (0.9, 0.98), weight_decay=recipe.weight_decay)]
    if inner:
        made.append(
            torch.optim.Muon(inner, recipe.muon, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return made


def fit(model: nn.Module, loss, recipe: Recipe, file: Path) -> nn.Module:
    """Trains `model` in place and leaves its averaged weights in it.

    loss: function of the step number to a dict of scalar tensors; "loss" is minimised, all are logged.
    file: checkpoint; if it is there the run goes on from it. The log stands beside it as .csv, its curves as .png.
    """
    made = optimisers(model, recipe)
    rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in made]
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )
    first = _resume(model, average, made, file)
    _trim(file.with_suffix(".csv"), first)
    start, sums = time.time(), {}
    for step in range(first, recipe.steps):
        for optimiser, own in zip(made, rates):
            for group, rate in zip(optimiser.param_groups, own):
                group["lr"] = rate * recipe.rate(step)
        values = loss(step)
        values["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimiser in made:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        average.update_parameters(model)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        if (step + 1) % recipe.log_every == 0:
            _log(file.with_suffix(".csv"), step + 1, {k: float(v) / recipe.log_every for k, v in sums.items()}, start)
            sums = {}
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(model, average, made, step + 1, file)
            draw_curves(file.with_suffix(".csv"))
    model.load_state_dict(average.module.state_dict())
    return model


def _resume(model, average, made, file: Path) -> int:
    if not file.is_file():
        return 0
    state = torch.load(file, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    for optimiser, kept in zip(made, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return state["step"]


def _save(model, average, made, step: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "average": average.state_dict()}
    state["optimisers"] = [optimiser.state_dict() for optimiser in made]
    partial = file.with_suffix(".partial")
    torch.save({**state, "step": step}, partial)
    partial.replace(file)


def _trim(log: Path, step: int) -> None:
    """Drops what was logged after the checkpoint that the run goes on from."""
    if log.is_file():
        head, *rows = log.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        log.write_text("\n".join([head, *kept, ""]), encoding="utf-8")


def _log(file: Path, step: int, values: dict, start: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if new:
            writer.writerow(["step", "seconds", *values])
        writer.writerow([step, round(time.time() - start, 1), *(round(v, 6) for v in values.values())])
    print(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)


def draw_curves(log: Path) -> None:
    """The logged losses over the steps, as a PNG beside the log; first steps above the others' range are cut off."""
    if not log.is_file():
        return
    names, *rows = csv.reader(log.read_text(encoding="utf-8").splitlines())
    steps, _, *values = np.array(rows, dtype=float).T
    top = max(float(np.quantile(v, 0.97)) for v in values)
    series = dict(zip(names[2:], values, strict=True))
    limits = (min(0.0, *map(np.min, values)), top * 1.1 or 1.0)
    picture = line_plot(series, log.stem, x=steps, x_label="step", limits=limits, size=(640, 320))
    picture.save(log.with_suffix(".png"))
