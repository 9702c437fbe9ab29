"""The report of the experiments on Variance Expansion: tables, plots, and a sentence on each question."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ...measure import figures
from . import ring

KINDS = ("VE", "scale-free", "KL")
STEPS = (5, 10, 50)
NOISY = "psnr at 20 %"
LAW = {"slope": (0.9, 1.05), "correlation": (0.9, 1.0), "ratio": (0.95, 1.05)}  # of the smallest weight

COLUMNS = {
    "psnr": "clean", "psnr of z": "of z", "psnr at 5 %": "5 %", "psnr at 10 %": "10 %", NOISY: "20 %",
    "sigma^2": "sigma^2", "spread": "spread", "snr": "SNR dB", "bits": "bits", "slope": "slope",
    "correlation": "corr.", "ratio": "ratio",
}  # fmt: skip


def gain(rows: list[dict], kind: str, seed: int) -> dict[float, float]:
    """Weight -> dB under 20 % noise over a KL VAE of the same clean PSNR, on straight lines between the KL VAEs.

    NaN where no KL VAE reaches that PSNR from above or from below.
    """
    sweep = sorted((r["psnr"], r[NOISY]) for r in rows if r["kind"] == "KL" and r["seed"] == seed)
    x, y = np.array(sweep).T
    own = [r for r in rows if r["kind"] == kind and r["seed"] == seed]
    return {r["weight"]: r[NOISY] - float(np.interp(r["psnr"], x, y, np.nan, np.nan)) for r in own}


def report(rows: list[dict], samples: list[dict], slopes: list[float], modes: list[dict]) -> str:
    """Markdown. rows, samples, modes: what `measure`, `distances` and `ring.run` gave; slopes: of linear decoders."""
    seeds = sorted({row["seed"] for row in rows})
    parts = [
        f"# Variance Expansion at the size of a toy, {len(seeds)} seeds",
        "Noise is relative to each latent's spread; PSNR in dB; mean +- standard deviation over the seeds.",
        table(rows),
        "## V1: the law\n" + law_text(rows, slopes),
        "## V2: against a KL VAE of equal clean PSNR, 20 % noise\n" + gain_text(rows, "VE", seeds),
        "## V3: the same, free of scale\n" + gain_text(rows, "scale-free", seeds),
        "## V4: Frechet distance to photographs, by Euler steps\n" + flow_table(samples),
        "### Eight Gaussians on a circle, latents of two numbers, 10 Euler steps\n" + ring.table(modes, cell),
    ]
    return "\n\n".join(parts)


def cell(values: list[float]) -> str:
    """Mean +- standard deviation; - for what was not measured."""
    if not np.isfinite(values).all():
        return "-"
    spread = f" +- {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread}"


def table(rows: list[dict]) -> str:
    """A line per term and weight."""
    lines = ["| term | weight | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, weight in dict.fromkeys((row["kind"], row["weight"]) for row in rows):
        own = [row for row in rows if (row["kind"], row["weight"]) == (kind, weight)]
        cells = [cell([row[name] for row in own]) for name in COLUMNS]
        lines.append(f"| {kind} | {weight:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def law_text(rows: list[dict], slopes: list[float]) -> str:
    """Whether the smallest weight keeps the law in every seed, and a linear decoder to one percent."""
    own = [row for row in rows if row["kind"] == "VE"]
    smallest = min(row["weight"] for row in own)
    least = [row for row in own if row["weight"] == smallest]
    holds = all(low <= row[name] <= high for row in least for name, (low, high) in LAW.items())
    exact = all(abs(slope - 1) < 0.01 for slope in slopes)
    ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in LAW.items())
    return (
        f"A linear decoder: slope {', '.join(f'{s:.4f}' for s in slopes)}; within 1 % of one: {_yes(exact)}.\n"
        f"The smallest weight, {smallest:g} ({ranges}), in every seed: {_yes(holds)}."
    )


def gain_text(rows: list[dict], kind: str, seeds: list[int]) -> str:
    """dB per weight and seed over the KL VAE, and whether it is ahead in all."""
    found = [gain(rows, kind, seed) for seed in seeds]
    lines = ["| weight | " + " | ".join(f"seed {seed}" for seed in seeds) + " |", "|---" * (len(seeds) + 1) + "|"]
    for weight in found[0]:
        cells = [f"{f[weight]:+.2f}" if np.isfinite(f[weight]) else "no KL VAE of that PSNR" for f in found]
        lines.append(f"| {weight:g} | " + " | ".join(cells) + " |")
    compared = [value for f in found for value in f.values() if np.isfinite(value)]
    verdict = _yes(min(compared) > 0) if compared else "nothing to compare"
    return "\n".join(lines) + f"\n\nAhead wherever there is a KL VAE to compare with, in every seed: {verdict}."


def flow_table(samples: list[dict]) -> str:
    """A line per kind of latents. Below the reconstructions' own distance none can be expected to come."""
    columns = ["reconstructed", *(f"{k} steps" for k in STEPS)]
    lines = ["| latents | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(sample["latents"] for sample in samples):
        own = [sample for sample in samples if sample["latents"] == name]
        lines.append(f"| {name} | " + " | ".join(cell([s[c] for s in own]) for c in columns) + " |")
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def picture(rows: list[dict], samples: list[dict]) -> Image.Image:
    """The law over the weight, PSNR under noise over clean PSNR, distances over steps; bands: range of the seeds."""
    names = list(dict.fromkeys(s["latents"] for s in samples))
    found = {n: by_seed([s for s in samples if s["latents"] == n], [f"{k} steps" for k in STEPS]) for n in names}
    return figures.render(
        [
            [law_panel(rows), noise_panel(rows)],
            [figures.Lines(found, "V4: distance to photographs", x=STEPS, x_label="Euler steps",
                           y_label="Frechet distance", logarithmic=True, size=(8.4, 2.8))],
        ]
    )  # fmt: skip


def by_seed(rows: list[dict], names: list[str]) -> list[list[float]]:
    """A line per seed with those figures."""
    return [[row[name] for name in names] for row in rows]


def law_panel(rows: list[dict]) -> figures.Lines:
    """Slope, correlation and ratio of the plain term over its weight; 1 is the law."""
    own = [row for row in rows if row["kind"] == "VE"]
    weights, seeds = (sorted({row[name] for row in own}) for name in ("weight", "seed"))
    value = {(row["seed"], row["weight"]): row for row in own}
    lines = {name: [[value[seed, weight][name] for weight in weights] for seed in seeds] for name in LAW}
    return figures.Lines(lines, "V1: the law (1 is right)", x=weights, x_label="weight", logarithmic=True)


def noise_panel(rows: list[dict]) -> figures.Lines:
    """PSNR under noise over clean PSNR, a line per kind of term, of all seeds together."""
    clean = [row["psnr"] for row in rows]
    grid = np.linspace(min(clean), max(clean), 60)
    noisy = {}
    for kind in KINDS:
        points = sorted((row["psnr"], row[NOISY]) for row in rows if row["kind"] == kind)
        noisy[kind] = np.interp(grid, *np.array(points).T, np.nan, np.nan)
    labels = {"x_label": "clean PSNR, dB", "y_label": "PSNR, dB"}
    return figures.Lines(noisy, "V2, V3: under 20 % noise", x=grid, **labels)
