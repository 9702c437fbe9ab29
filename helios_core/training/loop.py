"""The one training loop: AdamW, and Muon for the matrices of blocks; warm-up, plateau, cosine decay; an average of the
weights, a log, and checkpoints to resume from.
"""

from __future__ import annotations

import csv
import math
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim import swa_utils
from tqdm import tqdm

from ..disk import replacing, write
from ..measure import figures


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train. Steps are optimiser steps.

    muon: learning rate for the matrices inside `blocks`; 0 leaves all to AdamW. decay: the share of the steps, at the
    end, over which the rates fall; a run is extended from any checkpoint of the plateau before it. curves: the log is
    drawn, too.
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
    curves: bool = True

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
    made: list[torch.optim.Optimizer] = []
    if rest:
        made.append(torch.optim.AdamW(rest, recipe.lr, (0.9, 0.98), weight_decay=recipe.weight_decay))
    if inner:
        made.append(
            torch.optim.Muon(inner, recipe.muon, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return made


def find_device(name: str) -> torch.device:
    """auto: the first GPU, or the CPU. ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"--device {name}: torch cannot use it ({error}); try auto or cpu") from error


def join(device: str) -> torch.device:
    """This process's device; under torchrun, its place in the group that trains together."""
    if "RANK" not in os.environ:
        return find_device(device)
    place = find_device(device)
    if place.type == "cuda":
        place = torch.device(place.type, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return place


class Objective(nn.Module):
    """A loss as a module's forward, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, step: int) -> dict:
        """The loss and what is logged beside it, as `fit` takes them."""
        return self.loss(step)


def rank() -> int:
    """This process's number among those that train together; 0 alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def among_local() -> tuple[int, int]:
    """This process's number among those of this machine that train together, and how many they are; (0, 1) alone."""
    if not distributed.is_initialized():
        return 0, 1
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


def fit(model: nn.Module, loss, recipe: Recipe, file: Path, watch=lambda *_: None) -> nn.Module:
    """Trains `model` in place and leaves its averaged weights in it.

    loss: function of the step number to a dict of scalar tensors; "loss" is minimised, all are logged. In a process
    group each process has a share of the batch, gradients are averaged, and the first one logs and saves.
    file: checkpoint; if it is there the run goes on from it. The log stands beside it as .csv, its curves as .png.
    watch(step, average): called after every step with the number of those done and the averaged model. What it or the
    loss raises ends the run, its state saved. ValueError, before any step, for a checkpoint of more steps than asked
    for, and where matplotlib is missing for the curves; later where the loss is no number any more.
    """
    if recipe.curves:
        figures.require()
    made = optimisers(model, recipe)
    rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in made]
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(recipe.ema))
    first, main = _resume(model, average, made, file, recipe.steps), rank() == 0
    log = file.with_suffix(".csv")
    if main:
        _trim(log, first)
    objective, start, sums = _share(Objective(model, loss)), time.time(), {}
    bar = tqdm(initial=first, total=recipe.steps, desc=file.stem, disable=None if main else True)
    for step in range(first, recipe.steps):
        _set_rates(made, rates, recipe.rate(step))
        save = partial(_save, model, average, made, file=file) if main else None
        values = _or_save(save if step > first else None, step, objective, step)
        _learn(values["loss"], model, made, recipe.clip)
        average.update_parameters(model)
        bar.update()
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in values.items()}
        if main and (step + 1) % recipe.log_every == 0:
            _log(log, step + 1, {k: float(v) / min(recipe.log_every, step + 1 - first) for k, v in sums.items()}, start)
            sums = {}
        if main and ((step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps):
            save(step=step + 1)
            if recipe.curves:
                draw_curves(log)
        _or_save(save, step + 1, watch, step + 1, average.module)
    bar.close()
    model.load_state_dict(average.module.state_dict())
    return model


def _learn(loss: Tensor, model: nn.Module, made, clip: float) -> None:
    """One step of the optimisers down a loss."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimiser in made:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _or_save(save, step: int, function, *args):
    """function(*args); where it raises, such as for Stop, what was trained in `step` steps is saved first. save: of the
    first process, else None."""
    done = False
    try:
        found = function(*args)
        done = True
        return found
    finally:
        if save is not None and not done:
            save(step=step)


def _set_rates(made, rates, share: float) -> None:
    for optimiser, own in zip(made, rates):
        for group, rate in zip(optimiser.param_groups, own):
            group["lr"] = rate * share


def _share(objective: Objective) -> nn.Module:
    """In a process group: with gradients averaged over all of it."""
    return nn.parallel.DistributedDataParallel(objective) if distributed.is_initialized() else objective


def _resume(model, average, made, file: Path, steps: int) -> int:
    """Loads the checkpoint, if there is one, and gives the step to go on from."""
    if not file.is_file():
        return 0
    state = torch.load(file, map_location=next(model.parameters()).device, weights_only=True)
    if state["step"] > steps:
        raise ValueError(
            f"{file} was trained for {state['step']} steps, more than the {steps} asked for; ask for as many, or name "
            "another folder"
        )
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    for optimiser, kept in zip(made, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return state["step"]


def _save(model, average, made, *, step: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "average": average.state_dict()}
    state["optimisers"] = [optimiser.state_dict() for optimiser in made]
    with replacing(file) as part:
        torch.save({**state, "step": step}, part)


def _trim(log: Path, step: int) -> None:
    """Drops what was logged after the checkpoint that the run goes on from."""
    if log.is_file():
        head, *rows = log.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        write(log, "\n".join([head, *kept, ""]))


def _log(file: Path, step: int, values: dict, start: float) -> None:
    if not all(map(math.isfinite, values.values())):
        raise ValueError(f"{file.stem}: the loss is no number any more before step {step}; take a lower learning rate")
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if new:
            writer.writerow(["step", "seconds", *values])
        writer.writerow([step, round(time.time() - start, 1), *(round(v, 6) for v in values.values())])
    with tqdm.external_write_mode():
        print(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)


def draw_curves(log: Path) -> None:
    """The logged losses over the steps, as a PNG beside the log; first steps above the others' range are cut off.

    ValueError where matplotlib is missing.
    """
    if not log.is_file():
        return
    names, *rows = csv.reader(log.read_text(encoding="utf-8").splitlines())
    steps, _, *values = np.array(rows, dtype=float).T
    top = max(float(np.quantile(v, 0.97)) for v in values)
    series = dict(zip(names[2:], values, strict=True))
    limits = (min(0.0, *map(np.min, values)), top * 1.1 or 1.0)
    panel = figures.Lines(series, log.stem, x=steps, x_label="optimiser step", limits=limits, size=(6.4, 3.2))
    with replacing(log.with_suffix(".png")) as part:
        figures.render([[panel]]).save(part, "PNG")
