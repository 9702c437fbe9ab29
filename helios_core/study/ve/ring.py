"""V4 where it can be seen: eight Gaussians on a circle, lifted to sixteen numbers, through latents of two.

A flow on those latents has to bridge the gaps between the modes in a few steps. Counted is how many of its samples,
decoded, lie on a mode, and how far they are from the plane that all data lie in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...training.ve import terms, toy

MODES, SPREAD, LIFTED, NEAR = 8, 0.05, 16, 3.0  # on a circle of radius 1; near: standard deviations from a mode
TERMS = {"KL 1e-06": terms.KL(1e-6), "VE 0.1": terms.VarianceExpansion(0.1), "VE 0.001": terms.VarianceExpansion(1e-3)}
POINTS, SAMPLES, EULER = 20000, 4000, 10


def plane() -> Tensor:
    """The two directions [2 16] that the circle lies in."""
    return torch.linalg.qr(torch.randn(LIFTED, 2, generator=torch.Generator().manual_seed(8)))[0].T


def draw(count: int, seed: int) -> Tensor:
    """Points [n 16] about the eight modes."""
    rng = np.random.default_rng((seed, 9))
    angle = 2 * np.pi * rng.integers(0, MODES, count) / MODES
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + SPREAD * rng.standard_normal((count, 2))
    return torch.from_numpy(points.astype(np.float32)) @ plane()


def measure(points: Tensor) -> dict[str, float]:
    """on a mode: share of points [n 16] within `NEAR` spreads of one; off the plane: root mean square distance to it;
    modes: how many have their share, at least half of an eighth."""
    flat = points @ plane().T
    angle = 2 * torch.pi * torch.arange(MODES) / MODES
    far, nearest = torch.cdist(flat, torch.stack([angle.cos(), angle.sin()], 1)).min(1)
    on = far < NEAR * SPREAD
    off = (points - flat @ plane()).square().sum(1).mean().sqrt()
    reached = torch.bincount(nearest[on], minlength=MODES) >= len(points) / MODES / 2
    return {"on a mode": float(on.float().mean()), "off the plane": float(off), "modes": float(reached.sum())}


def run(folder: Path, *, seeds: int, steps: int, flow_steps: int) -> Iterator[dict]:
    """A row per term and seed: of the decoded samples, and of the data's own reconstructions. Trainings stay in
    `folder`."""
    for seed in range(seeds):
        data, fresh = draw(POINTS, seed), draw(SAMPLES, seed + 100)
        for name, term in TERMS.items():
            place = folder / f"ring-seed{seed}"
            file = f"{name.replace(' ', '-')}.pt"
            vae = toy.train_vae(data, term, place / file, steps=steps, seed=seed, latents=2)
            flow = toy.train_flow(vae, data, place / f"flow-{file}", steps=flow_steps, seed=seed)
            drawn = toy.sample(flow, vae, data, count=SAMPLES, steps=EULER, seed=seed)
            with torch.no_grad():
                mean, logvar = vae.encode(fresh)
                rebuilt = measure(vae.decode(mean))["on a mode"]
            sigma = float((0.5 * logvar).exp().mean() / mean.std(0).mean())
            yield {"seed": seed, "latents": name, **measure(drawn), "rebuilt": rebuilt, "sigma": sigma}


def table(rows: list[dict], cell) -> str:
    """A line per term. cell: values over the seeds -> text."""
    columns = {
        "on a mode": "on a mode", "modes": "modes reached", "off the plane": "off the plane",
        "rebuilt": "data, rebuilt: on a mode", "sigma": "sigma of spread",
    }  # fmt: skip
    lines = [f"| latents | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for name in TERMS:
        own = [row for row in rows if row["latents"] == name]
        lines.append(f"| {name} | {' | '.join(cell([row[key] for row in own]) for key in columns)} |")
    return "\n".join(lines)
