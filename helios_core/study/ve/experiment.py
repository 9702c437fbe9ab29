"""Experiments V1 to V4 on Variance Expansion, on small autoencoders of grey patches; three seeds.

V1  does the posterior lie at (weight / T)^(1/4), and where does the law end
V2  noise against an ordinary VAE of the same clean PSNR
V3  the same with the term that latents cannot escape by growing
V4  few-step sampling on both kinds of latents
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from ...disk import replacing, write
from ...training.ve import terms, toy
from ..page import rerun, save_picture
from . import law, ring
from .text import LAW, NOISY, STEPS, picture, report

TERMS = {
    **{f"VE {w:g}": terms.VarianceExpansion(w) for w in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
    **{f"scale-free {w:g}": terms.VarianceExpansion(w, free_of_scale=True) for w in (1e-5, 1e-4, 1e-3, 1e-2)},
    **{f"KL {w:g}": terms.KL(w) for w in (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
}
DRAWN = ("VE 0.001", "scale-free 0.0001")  # whose latents V4 samples, beside the KL VAE of the nearest PSNR


@dataclass(frozen=True)
class VarianceSizes:
    """patches: to train on; steps, flow_steps: of a VAE and of a flow; samples: for a Frechet distance.

    ValueError for fewer than one seed and step, or 200 patches and samples.
    """

    seeds: int = 3
    patches: int = 30000
    steps: int = 4000
    flow_steps: int = 4000
    samples: int = 3000

    def __post_init__(self):
        if min(self.seeds, self.steps, self.flow_steps) < 1 or min(self.patches, self.samples) < 200:
            raise ValueError("wanted at least 1 seed and step, and 200 patches and samples")


QUICK = VarianceSizes(seeds=2, patches=400, steps=3, flow_steps=2, samples=200)


def study(
    train: np.ndarray,
    test: np.ndarray,
    folder: Path,
    sizes: VarianceSizes = VarianceSizes(),
    *,
    page: Path,
    command: str,
) -> Iterator[str]:
    """Yields a line per finished VAE and flow, and writes the page. Trainings stay below `folder`, those of other
    patches or steps apart: a run goes on where it stopped. command: how to rerun it."""
    made = folder / trainings(train, sizes)
    train, test = torch.from_numpy(train), torch.from_numpy(test)
    rows, samples = [], []
    for seed in range(sizes.seeds):
        own = made / f"seed{seed}"
        vaes = {}
        for name, term in TERMS.items():
            file = own / f"{name.replace(' ', '-')}.pt"
            vaes[name] = toy.train_vae(train, term, file, steps=sizes.steps, seed=seed)
            rows.append(measure(vaes[name], test, name, seed))
            yield f"seed {seed}, {name}: {rows[-1]['psnr']:.2f} dB clean, {rows[-1][NOISY]:.2f} dB at 20 %"
        for name, beside in pairs([row for row in rows if row["seed"] == seed]):
            file = own / f"flow-{name.replace(' ', '-')}.pt"
            flow = toy.train_flow(vaes[name], train, file, steps=sizes.flow_steps, seed=seed)
            samples.append({"seed": seed, "latents": name, "beside": beside})
            samples[-1] |= distances(flow, vaes[name], train, test, sizes.samples, seed)
            yield f"seed {seed}, flow on {name}: {samples[-1]['10 steps']:.4f} from photographs in 10 steps"
    modes = []
    half = {"steps": -(-sizes.steps // 2), "flow_steps": -(-sizes.flow_steps // 2)}
    for row in ring.run(made, seeds=sizes.seeds, **half):
        modes.append(row)
        yield f"seed {row['seed']}, eight Gaussians, {row['latents']}: {row['on a mode']:.1%} of the samples on a mode"
    slopes = [law.linear_law(seed) for seed in range(sizes.seeds)]
    write_tables(folder, {"vaes": rows, "flows": samples, "ring": modes})
    shown = save_picture(page, "curves", picture(rows, samples), "The law, noise on latents, and few-step sampling")
    write(page, "\n\n".join([report(rows, samples, slopes, modes), shown, rerun(command)]) + "\n")


def trainings(train: np.ndarray, sizes: VarianceSizes) -> str:
    """The name of a folder for what is trained on these patches for so many steps."""
    return f"steps{sizes.steps}-{sizes.flow_steps}-{crc32(train.tobytes()):08x}"


def measure(vae, test: Tensor, name: str, seed: int) -> dict:
    """A row: the VAE's quality, and of those with a law how well it holds."""
    kind, _, weight = name.partition(" ")
    row = {"seed": seed, "kind": kind, "weight": float(weight), **law.quality(vae, test, seed)}
    nothing = dict.fromkeys(LAW, float("nan"))
    return row | (nothing if kind == "KL" else law.law(vae, test, TERMS[name]))


def pairs(rows: list[dict]) -> list[tuple[str, str]]:
    """Of one seed: the latents that V4 samples, each with those that it is set beside: of the nearest clean PSNR."""
    found = []
    for name in DRAWN:
        own = next(row for row in rows if _name(row) == name)
        nearest = min((r for r in rows if r["kind"] == "KL"), key=lambda r: abs(r["psnr"] - own["psnr"]))
        found += [(name, _name(nearest)), (_name(nearest), name)]
    return list(dict(found).items())


def _name(row: dict) -> str:
    return f"{row['kind']} {row['weight']:g}"


def distances(flow, vae, train: Tensor, test: Tensor, count: int, seed: int) -> dict[str, float]:
    """Frechet distance to test patches by Euler steps; also of the VAE's reconstructions, below which none can come."""
    with torch.no_grad():
        best = frechet(vae.decode(vae.encode(test)[0]).numpy(), test.numpy())
    found = {"reconstructed": best}
    for steps in STEPS:
        drawn = toy.sample(flow, vae, train, count=count, steps=steps, seed=seed)
        found[f"{steps} steps"] = frechet(drawn.numpy(), test.numpy())
    return found


def frechet(a: np.ndarray, b: np.ndarray, dims: int = 16) -> float:
    """Between the Gaussians of two sets of patches [n p], in the first principal components of b."""
    b = b.astype(np.float64)
    axes = np.linalg.svd(b - b.mean(0), full_matrices=False)[2][:dims].T
    (m, s), (n, t) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a.astype(np.float64) @ axes, b @ axes))
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return float(((m - n) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * cross)


def write_tables(folder: Path, tables: dict[str, list[dict]]) -> None:
    """The figures as CSV files of these names."""
    for name, table in tables.items():
        with replacing(folder / f"{name}.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, table[0])
            out.writeheader()
            out.writerows(table)
