"""Paired comparisons: what a policy changes against doing nothing, with the spread of it, and a verdict by one rule.

Every arm is measured on the same prompts and seeds, so differences are taken video by video: what a prompt or a seed
does to all arms cancels out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ERRORS = 2.0  # standard errors that a difference must exceed
TO_CHANGE = 3.0  # and that it must for a default: of many arms one is ahead by chance
ROUNDING = 1e-9  # of the values' size: below this they are the same
RULE = (
    "An arm is *better* (or *worse*) than doing nothing in a figure if it is so in the mean of every seed, and the "
    f"mean difference exceeds {ERRORS:g} standard errors (over prompts, of the differences averaged over seeds). It "
    "earns its place if it is better in some figure that has a goal and worse in none. The default changes only for "
    f"an arm that is, by the same measure against the default, better in the deciding figure, by {TO_CHANGE:g} "
    "standard errors, and worse in none; of several, for the one that is best in it."
)


@dataclass(frozen=True)
class Figure:
    """One measured number. goal: "high" or "low" is better, "" is only shown; scale, digits: for the page.

    least: a difference up to this counts as none.
    """

    name: str
    title: str
    goal: str = ""
    scale: float = 1.0
    digits: int = 3
    least: float = 0.0


def compare(arm, base, goal: str, least: float = 0.0) -> dict:
    """An arm's figure against the baseline's, both [seeds, prompts], paired by place.

    mean, spread: of the arm's and over its seeds; difference, error: mean of the differences and its standard error
    over prompts; by_seed: the differences of each seed. ValueError for shapes that differ.
    """
    arm, base = np.asarray(arm, dtype=float), np.asarray(base, dtype=float)
    if arm.ndim != 2 or arm.shape != base.shape:
        raise ValueError(f"paired figures: wanted two arrays [seeds, prompts], got {arm.shape} and {base.shape}")
    change = arm - base
    by_seed, by_prompt = change.mean(axis=1), change.mean(axis=0)
    found = {
        "mean": float(arm.mean()),
        "spread": _deviation(arm.mean(axis=1)),
        "difference": float(change.mean()),
        "error": _deviation(by_prompt) / math.sqrt(len(by_prompt)),
        "by_seed": by_seed.tolist(),
    }
    size = float(abs(arm).max() + abs(base).max())
    return found | {"verdict": verdict(found, goal, least=max(least, ROUNDING * size))}


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def verdict(found: dict, goal: str, *, least: float = 0.0) -> str:
    """better, worse, same (no seed differs by more than `least`), unclear, or "" without a goal. See RULE."""
    seeds, mean, error = np.array(found["by_seed"]), found["difference"], found["error"]
    if not goal:
        return ""
    if np.all(abs(seeds) <= least):
        return "same"
    agree = len(seeds) > 1 and (np.all(seeds > 0) or np.all(seeds < 0))
    if not (agree and abs(mean) > ERRORS * error):  # NaN, of one prompt, is never clear
        return "unclear"
    return "better" if (mean > 0) == (goal == "high") else "worse"


def earns(figures: dict[str, dict]) -> bool:
    """Whether an arm's comparisons, by figure, hold something better and nothing worse."""
    verdicts = [f["verdict"] for f in figures.values()]
    return "better" in verdicts and "worse" not in verdicts


def is_clear(found: dict) -> bool:
    """Whether a comparison is better by enough to change a default."""
    return found["verdict"] == "better" and abs(found["difference"]) > TO_CHANGE * found["error"]


def conclude(values: dict[str, dict], figures, decides: str, baseline: str, default: str) -> dict:
    """The result of a part. values: arm -> figure -> [seeds, prompts]; decides: the figure that ranks.

    arms: every arm's comparisons with the baseline; earning: the arms that earn their place, the best in the deciding
    figure first; result: the default that follows.
    """
    against = {
        other: {
            arm: {f.name: compare(v[f.name], values[other][f.name], f.goal, f.least) for f in figures}
            for arm, v in values.items()
        }
        for other in {baseline, default}
    }
    sign = -1 if next(f for f in figures if f.name == decides).goal == "high" else 1
    ranked = sorted(values, key=lambda arm: sign * against[baseline][arm][decides]["mean"])
    beats = [arm for arm in ranked if earns(against[default][arm]) and is_clear(against[default][arm][decides])]
    earning = [arm for arm in ranked if earns(against[baseline][arm])]
    return {"arms": against[baseline], "earning": earning, "result": beats[0] if beats else default}


def chance(seeds: int, prompts: int, trials: int = 4000) -> float:
    """The share of comparisons that are called better though nothing differs: of normal draws, measured."""
    draws = np.random.default_rng(0).standard_normal((trials, seeds, prompts))
    found = (compare(x, x * 0, "high")["verdict"] for x in draws)
    return sum(v == "better" for v in found) / trials
