"""The one training loop: AdamW with warm-up and cosine decay, EMA, a log, and checkpoints to resume from."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train. Steps are optimiser steps."""

    steps: int
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    save_every: int = 200
    log_every: int = 20

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then cosine to a fiftieth."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def fit(model: nn.Module, loss, recipe: Recipe, file: Path) -> nn.Module:
    """Trains `model` in place and leaves its averaged weights in it.

    loss: function of the step number to a dict of scalar tensors; "loss" is minimised, all are logged.
    file: checkpoint; if it is there the run goes on from it. The log stands beside it as .csv.
    """
    optimiser = torch.optim.AdamW(model.parameters(), recipe.lr, (0.9, 0.98), weight_decay=recipe.weight_decay)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )
    first = _resume(model, average, optimiser, file)
    start, sums = time.time(), {}
    for step in range(first, recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        values = loss(step)
        values["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update_parameters(model)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        if (step + 1) % recipe.log_every == 0:
            _log(file.with_suffix(".csv"), step + 1, {k: float(v) / recipe.log_every for k, v in sums.items()}, start)
            sums = {}
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(model, average, optimiser, step + 1, file)
    model.load_state_dict(average.module.state_dict())
    return model


def _resume(model, average, optimiser, file: Path) -> int:
    if not file.is_file():
        return 0
    state = torch.load(file, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


def _save(model, average, optimiser, step: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    partial = file.with_suffix(".partial")
    torch.save({**state, "step": step}, partial)
    partial.replace(file)


def _log(file: Path, step: int, values: dict, start: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if new:
            writer.writerow(["step", "seconds", *values])
        writer.writerow([step, round(time.time() - start, 1), *(round(v, 6) for v in values.values())])
    print(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)
