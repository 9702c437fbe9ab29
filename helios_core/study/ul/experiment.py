"""The experiments of Unified Latents at the size of a toy: the loss factor, the bound, and what breaks it.

Every claim of the page is computed from the figures, whichever way they fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...disk import write
from ...measure import figures
from ..page import rerun, save_picture
from .arms import SIZE, TESTED, Arm, run

FACTORS = (1.5, 3.0, 6.0)
MORE = (*FACTORS, 12.0)  # of the normal prior, to reach the PSNR that it is compared at
CHANCE = 0.05  # of a distance between pictures: less cannot be told apart
MIDDLE = Arm(3.0, refit=4, base=True)


@dataclass(frozen=True)
class UnifiedSizes:
    """How much is trained: optimiser steps of an arm, seeds of the sweep. ValueError below 1."""

    steps: int = 1500
    seeds: int = 3

    def __post_init__(self):
        if self.steps < 1 or self.seeds < 1:
            raise ValueError("the study wants at least 1 step and 1 seed")


def sweep(sizes: UnifiedSizes) -> list[Arm]:
    """U2: the loss factor."""
    arms = [Arm(factor, seed=seed) for seed in range(sizes.seeds) for factor in FACTORS]
    return [MIDDLE if arm.name == MIDDLE.name else arm for arm in arms]


def others() -> list[Arm]:
    """U3 to U5: a normal prior, less noise on the latents, and a prior that the encoder does not feel."""
    normal = [Arm(factor, prior="normal") for factor in MORE]
    clearer = [Arm(factor, 10.0, refit=MIDDLE.refit if factor == MIDDLE.factor else 0) for factor in FACTORS]
    return [*normal, *clearer, Arm(MIDDLE.factor, prior="detached")]


def measure(arms: Iterable[Arm], files: list[Path], folder: Path, steps: int, *, workers: int, tell: Callable) -> dict:
    """Figures by name of arm; with several workers each arm is in a process and on a thread of its own."""
    found = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        tasks = {arm.name: pool.submit(run, arm, files, folder, steps) for arm in arms}
        for name, task in tasks.items():
            found[name] = task.result()
            tell(f"{name}  bits per pixel {found[name]['bits_per_pixel']:.4f}  PSNR {found[name]['psnr']:.2f}")
    return found


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Verdict(NamedTuple):
    """What the paper says, whether these figures say it too (None: they cannot tell), and the figures."""

    claim: str
    holds: bool | None
    figures: str


SAID = {True: "yes", False: "no", None: "cannot be told"}
CLAIMS = {"bits_per_pixel": True, "psnr": True, "decoder_variance": False}  # figure -> whether it should rise

CLAIM_UNITS = {"bits_per_pixel": "bits", "psnr": "dB", "decoder_variance": "of pixels in [-1, 1]"}


def verdicts(found: dict, sizes: UnifiedSizes) -> list[Verdict]:
    """All of them, from figures by name of arm."""
    return [
        *(of_sweep(found, sizes, name) for name in CLAIMS),
        *of_bound(found, sizes),
        *of_breaks(found),
        of_z0(found),
    ]


def of_sweep(found: dict, sizes: UnifiedSizes, name: str) -> Verdict:
    """U2, in every seed."""
    seeds = [[found[Arm(factor, seed=seed).name][name] for factor in FACTORS] for seed in range(sizes.seeds)]
    agree = [bool((np.diff(values) * (1 if CLAIMS[name] else -1) > 0).all()) for values in seeds]
    claim = f"{name.replace('_', ' ')} {'rises' if CLAIMS[name] else 'falls'} with the loss factor"
    return Verdict(claim, all(agree), f"in {sum(agree)} of {len(agree)} seeds")


def of_bound(found: dict, sizes: UnifiedSizes) -> list[Verdict]:
    """U3."""
    rows = [found[arm.name] for arm in sweep(sizes)]
    pairs = [(row["bits_per_latent"], row["gaussian_bits_per_latent"]) for row in rows]
    text = "bits per number of the latent: " + ", ".join(f"{a:.2f} of {b:.2f}" for a, b in pairs)
    below = Verdict("the learned rate is below the Gaussian reference", all(a < b for a, b in pairs), text)
    normal = [Arm(factor, prior="normal") for factor in MORE]
    return [below, at_equal_psnr(found, "a normal prior costs more at equal PSNR", normal)]


def of_breaks(found: dict) -> list[Verdict]:
    """U4."""
    middle, clear = found[MIDDLE.name], [Arm(factor, 10.0) for factor in FACTORS]
    worse = at_equal_psnr(found, "lambda0 = 10 costs more than 5 at equal PSNR", clear)
    rows = (middle, found[Arm(MIDDLE.factor, 10.0).name])
    saved = [1 - row["bits_per_pixel_refitted"] / row["bits_per_pixel"] for row in rows]
    text = f"a fresh prior of {MIDDLE.refit} times the steps saves {saved[0]:.1%} at 5, {saved[1]:.1%} at 10"
    looser = Verdict("the bound is looser at lambda0 = 10", saved[1] > saved[0], text)
    pair = [found[Arm(MIDDLE.factor, prior="detached").name], middle]
    cut = pair[0]["bits_per_pixel"]
    text = " against ".join(f"{row['bits_per_pixel']:.4f} bits per pixel at {row['psnr']:.2f} dB" for row in pair)
    return [
        worse,
        looser,
        Verdict("a prior the encoder does not feel costs more", cut > middle["bits_per_pixel"], text),
    ]


def of_z0(found: dict) -> Verdict:
    """U5."""
    row = found[MIDDLE.name]
    text = ", ".join(f"{way} {row[f'distance_{way}']:.4f}" for way in ("z0", "clean", "renoised"))
    claim = "samples decoded from z_0 are nearer to photographs than from a clean z"
    ratio = row["distance_z0"] / row["distance_clean"]
    holds = None if abs(ratio - 1) < CHANCE else ratio < 1
    text = f"sliced Wasserstein distance: {text} (less than {CHANCE:.0%} apart is taken for chance)"
    return Verdict(claim, holds, text)


def at_equal_psnr(found: dict, claim: str, others: list[Arm]) -> Verdict:
    """Whether the others need more bits than the sweep's first seed, in the middle of the PSNRs that both reach."""
    curves = [
        sorted((found[arm.name]["psnr"], found[arm.name]["bits_per_pixel"]) for arm in arms)
        for arms in ([Arm(factor) for factor in FACTORS], others)
    ]
    low, high = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if low > high:
        return Verdict(claim, None, "their PSNRs do not overlap")
    at = (low + high) / 2
    ours, theirs = (float(np.interp(at, *zip(*curve))) for curve in curves)
    return Verdict(claim, theirs > ours, f"{theirs:.4f} bits per pixel against {ours:.4f} at {at:.2f} dB")


def study(
    files: list[Path],
    folder: Path,
    sizes: UnifiedSizes,
    *,
    page: Path,
    command: str,
    workers: int = 1,
    tell: Callable = print,
) -> None:
    """Trains and measures every arm that is not on disk, and writes the page. command: how to rerun it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = measure([*sweep(sizes), *others()], files, folder, sizes.steps, workers=workers, tell=tell)
    shown = save_picture(page, "sweep", draw(found, sizes), "Bits, PSNR and decoder variance by loss factor")
    write(page, "\n\n".join([text_of(found, sizes), shown, rerun(command)]) + "\n")


def text_of(found: dict, sizes: UnifiedSizes) -> str:
    """The page's text."""
    names = ("bits_per_pixel", "bits_per_latent", "psnr", "psnr_one_step", "decoder_variance", "z_std")
    lines = ["# Unified Latents at the size of a toy", ""]
    lines += [
        f"{sizes.steps} steps per arm on crops of {SIZE} pixels; {TESTED} unseen ones measured.",
        "",
    ]
    lines += ["| what the paper says | here | figures |", "|---|---|---|"]
    lines += [f"| {v.claim} | {SAID[v.holds]} | {v.figures} |" for v in verdicts(found, sizes)]
    lines += ["", f"| arm | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {arm} | {' | '.join(f'{row[name]:.4g}' for name in names)} |" for arm, row in found.items()]
    return "\n".join(lines)


def draw(found: dict, sizes: UnifiedSizes):
    """The sweep's three figures over the loss factor: the mean of the seeds, and their range as a band."""
    panels = []
    for name, unit in CLAIM_UNITS.items():
        lines = {name: [[found[Arm(f, seed=s).name][name] for f in FACTORS] for s in range(sizes.seeds)]}
        title = name.replace("_", " ").replace("psnr", "PSNR")
        label = f"loss factor (mean and range of {sizes.seeds} seeds)"
        panels.append(figures.Lines(lines, title, x=FACTORS, x_label=label, y_label=unit, logarithmic=True))
    return figures.render([panels])
