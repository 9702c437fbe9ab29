"""Which variance, drift and boundary policies earn their place: the parts of the study, and the report about them.

No number or verdict of the page is written by hand: it is made of the results, by the rule in paired.py.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from ...disk import replacing, write
from ...measure import figures
from ..experiment import PolicySizes, StudyPart, fingerprint, measure, plain, results, seconds, table, write_json
from ..page import save_picture
from ..paired import ERRORS, RULE, Figure, chance
from .joints import DRAWN, JOINTS
from .latents import CONTENT, CONTROL, STAGES
from .renders import DRIFT, NOISE

PARTS = (NOISE, CONTENT, STAGES, CONTROL, DRIFT, JOINTS, DRAWN)
READING = (
    "Means over all videos of an arm. In brackets the mean difference from doing nothing, with its standard error, of "
    "figures that have a goal: **bold** is better, *italic* is worse, neither is too close to call, `=` is no "
    "difference at all. The first line is doing nothing, with the standard deviation over the seeds. In the pictures "
    f"a dot is a seed's mean difference from doing nothing, a line the mean and {ERRORS:g} standard errors either "
    "way; orange and filled earns its place."
)


def study(helios, sizes: PolicySizes, folder: Path, *, page: Path, command: str, parts=PARTS, tell=print) -> dict:
    """Measures what is not measured yet and writes results.json, results.csv, and the page with its pictures.

    page: the Markdown file; its pictures go into a folder of its name beside it. command: how to rerun it.
    """
    found = measure(helios, parts, sizes, folder, tell)
    d = helios.config.defaults
    about = {
        "model": Path(helios.checkpoint.path).name,
        "weights": fingerprint(helios),
        "steps": list(d.steps),
        "solver": d.solver,
        "cfg": d.cfg,
    }
    about |= {"sizes": asdict(sizes), "minutes": round(seconds(folder) / 60, 1), "command": command}
    about |= {"chance": chance(sizes.seeds, sizes.prompts), "rule": RULE}
    report = plain({"about": about, "parts": results(parts, found)})
    write_json(folder / "results.json", report)
    write_csv(folder / "results.csv", parts, found)
    write_page(page, parts, report)
    return report


def write_csv(file: Path, parts, found: dict) -> None:
    """A row per part, arm, seed, prompt and figure."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out)
        lines.writerow(["part", "arm", "seed", "prompt", "figure", "value"])
        for part in parts:
            for arm, by_figure in table(part, found[part.name]).items():
                for name, values in by_figure.items():
                    for (seed, prompt), value in np.ndenumerate(np.array(values, dtype=float)):
                        lines.writerow([part.name, arm, seed, prompt, name, f"{value:.6g}"])


def write_page(page: Path, parts, report: dict) -> None:
    """The Markdown page of a report, with a picture per part."""
    lines = ["# Which policies earn their place", "", *opening(parts, report), ""]
    for part in parts:
        found = report["parts"][part.name]
        drawn = picture(part, found, PolicySizes(**report["about"]["sizes"]))
        lines += [f"## {part.title}", part.text, "", save_picture(page, part.name, drawn, part.title), ""]
        lines += [*rows(part, found), "", *conclusion(part, found), ""]
    write(page, "\n".join(lines).rstrip() + "\n")


def opening(parts, report: dict) -> list[str]:
    """What was measured, by which rule, and the results in short."""
    about = report["about"]
    sizes, steps = about["sizes"], ",".join(map(str, about["steps"]))
    videos = sizes["prompts"] * sizes["seeds"]
    count = sum(bool(f["verdict"]) and f["verdict"] != "same" for f in comparisons(report))
    lines = [
        f"Measured with {about['model']} (weights {about['weights']}; steps {steps}, solver {about['solver']}, cfg "
        f"{about['cfg']:g}): {videos} videos for every arm, {sizes['prompts']} prompts with {sizes['seeds']} seeds. A "
        f"long video has {sizes['chunks']} chunks of 33 frames, {sizes['looks']} of which are read; joints are those "
        f"of {sizes['joint_chunks']} chunks. Measuring took {about['minutes']:g} minutes. This page is generated; "
        "to rerun it:",
        "",
        f"    {about['command']}",
        "",
        f"{about['rule']} Of comparisons in which nothing differs, {100 * about['chance']:.1f} % are called better "
        f"(simulated); {count} were made here, not counting equal ones.",
        "",
        "The checkpoint is small and its videos are simple shapes: what helps there need not help elsewhere.",
        "",
        "## In short",
        "| question | doing nothing | earns its place | default today | what follows |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        found = report["parts"][part.name]
        earning = ", ".join(f"`{arm}`" for arm in found["earning"]) or "nothing"
        today = f"`{part.default}`" if part.default else "-"
        change = "" if part.default in ("", found["result"]) else " (a change)"
        lines.append(f"| {part.title} | `{part.baseline}` | {earning} | {today} | `{found['result']}`{change} |")
    return [*lines, "", READING]


def comparisons(report: dict) -> list[dict]:
    """All of a report."""
    return [f for part in report["parts"].values() for arm in part["arms"].values() for f in arm.values()]


def rows(part: StudyPart, found: dict) -> list[str]:
    """The part's table, doing nothing first."""
    names = [part.baseline, *(arm for arm in part.arms if arm != part.baseline)]
    lines = [["", *(f.title for f in part.figures)], ["---"] * (1 + len(part.figures))]
    for arm in names:
        lines.append([f"`{arm}`", *(cell(found["arms"][arm][f.name], f, arm == part.baseline) for f in part.figures)])
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(found: dict, figure: Figure, baseline: bool) -> str:
    """One comparison in words; what could not be measured is a dash."""
    show = lambda v, sign="": "-" if v is None else f"{v * figure.scale:{sign}.{figure.digits}f}"  # noqa: E731
    mean, verdict = show(found["mean"]), found["verdict"]
    if baseline:
        return f"{mean} \u00b1 {show(found['spread'])}"
    if verdict in ("", "same"):
        return mean + (" (=)" if verdict else "")
    mark = {"better": "**", "worse": "*"}.get(verdict, "")
    return f"{mark}{mean}{mark} ({show(found['difference'], '+')} \u00b1 {show(found['error'])})"


def conclusion(part: StudyPart, found: dict) -> list[str]:
    """What earns its place, what helps here and harms there, and what follows for the default."""
    told = {arm: told_of(part, compared) for arm, compared in found["arms"].items()}
    lines = [f"- `{arm}` earns its place: better in {told[arm][0]}." for arm in found["earning"]]
    if not lines:
        lines = [f"- **Nothing helps**: no arm is better than `{part.baseline}` without being worse in something."]
    for better, worse in dict.fromkeys(told.values()):
        arms = ", ".join(f"`{arm}`" for arm, t in told.items() if t == (better, worse))
        if worse:
            lines.append(f"- {arms}: {f'better in {better}, but ' if better else ''}worse in {worse}.")
    return [*lines, f"- {follows(part, found['result'])}"]


def told_of(part: StudyPart, compared: dict) -> tuple[str, str]:
    """Titles of the figures in which an arm is better, and of those in which it is worse."""
    titles = {f.name: f.title.removesuffix(", %") for f in part.figures}
    better, worse = ([titles[k] for k, f in compared.items() if f["verdict"] == v] for v in ("better", "worse"))
    return "; ".join(better), "; ".join(worse)


def follows(part: StudyPart, result: str) -> str:
    """The default, or where there is none what to take."""
    stays, than = result == (part.default or part.baseline), part.default or part.baseline
    figure = f"the deciding figure ({next(f.title for f in part.figures if f.name == part.decides)}) and worse in none"
    what = "Default" if part.default else "To take"
    if stays:
        return f"**{what}: `{result}`**{', as it is' if part.default else ''}; no arm is better than it in {figure}."
    return f"**{what}: `{result}`**, which is better than `{than}` in {figure}."


def picture(part: StudyPart, found: dict, sizes: PolicySizes) -> Image.Image:
    """Differences from doing nothing, a plot per pictured figure; then the curves."""
    arms = [arm for arm in part.arms if arm != part.baseline]
    compared = {f: {arm: found["arms"][arm][f.name] for arm in arms} for f in part.figures if f.name in part.pictured}
    panels = [dots(figure, by_arm, found["earning"]) for figure, by_arm in compared.items()]
    curves = [(title, found["curves"][name]) for name, title in part.curves.items()]
    lines = [figures.Lines(curve, title, x=places(curve, sizes), x_label="chunk") for title, curve in curves]
    return figures.render([row[i : i + 2] for row in (panels, lines) for i in range(0, len(row), 2)])


def dots(figure: Figure, compared: dict[str, dict], earning: list[str]) -> figures.Dots:
    """A figure's differences from doing nothing. compared: by arm."""
    rows = {arm: [np.nan if v is None else v * figure.scale for v in c["by_seed"]] for arm, c in compared.items()}
    intervals = {arm: reach(c, figure.scale) for arm, c in compared.items()}
    told = f"change against doing nothing ({figure.goal} is better)"
    return figures.Dots(rows, intervals, figure.title, x_label=told, marked=earning)


def places(curve: dict, sizes: PolicySizes) -> list[int]:
    """Chunks, from 1, that a curve's points are of: those that were read, or all."""
    looks = [chunk + 1 for chunk in sizes.looked_at()]
    return looks if len(next(iter(curve.values()))) == len(looks) else list(range(1, sizes.chunks + 1))


def reach(found: dict, scale: float) -> tuple[float, float]:
    """The ends of a comparison's bar; NaN without an error."""
    if found["error"] is None or found["difference"] is None:
        return np.nan, np.nan
    half = ERRORS * found["error"]
    return (found["difference"] - half) * scale, (found["difference"] + half) * scale
