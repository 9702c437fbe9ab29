"""The study's page: which policy a control adapter is to be trained with, and what another one does to it.

Numbers and verdicts are made of the kept results, by the rule in paired.py; what explains them is written here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...disk import write
from ...measure import figures
from ...pyramid import build
from ..experiment import StudyPart, plain
from ..page import rerun, save_picture
from ..paired import RULE, chance, conclude
from ..policies import conclusion, dots, rows
from .arms import ALIKE, ARMS, LONGER, STRIPS, ArmBench, ControlSizes, KeptResults, made_of, run
from .measure import FIGURES
from .words import ADVICE, CELLS, FACTORS, QUESTION, SHORT, TITLE, WHAT

NEAR, ERROR, _, *BOARDS, CONTRAST, _ = FIGURES


def study(helios, sizes: ControlSizes, folder: Path, *, page: Path, command: str, tell=print) -> KeptResults:
    """Trains and measures what is missing, and writes the page after every part. ValueError as KeptResults has it."""
    results = KeptResults(page.with_suffix("") / "results.json", made_of(helios, sizes))
    bench = ArmBench(helios, sizes, folder)
    for _ in run(bench, results, time.perf_counter, tell):
        write_page(page, helios, sizes, results, command)
    write_page(page, helios, sizes, results, command)
    return results


def complete(results: KeptResults, sizes: ControlSizes) -> list[str]:
    """The seeds that every policy has."""
    return [str(s) for s in range(sizes.seeds) if all(str(s) in results.arms.get(policy, {}) for policy in ARMS)]


def table(results: KeptResults, seeds: list[str]) -> dict:
    """policy -> figure -> [seeds, videos]; an adapter's training loss stands with each of its videos."""
    found = {}
    for policy in ARMS:
        made = [results.arms[policy][seed] for seed in seeds]
        found[policy] = {
            f.name: [[one["loss"] if f.name == "loss" else row[f.name] for row in one["rows"]] for one in made]
            for f in FIGURES
        }
    return found


PART = StudyPart(
    name="control",
    title="Which policy to train with",
    text="",
    arms=dict.fromkeys(ARMS),
    baseline="content",
    default="",
    figures=FIGURES,
    decides="error",
    measure=lambda *_: None,
    pictured=("near", "error", "checker1", "checker2"),
)


def write_page(page: Path, helios, sizes: ControlSizes, results: KeptResults, command: str) -> None:
    """The Markdown page of what is there."""
    seeds = complete(results, sizes)
    lines = [f"# {TITLE}", "", QUESTION, "", *opening(results, sizes, seeds, command), ""]
    if seeds:
        found = plain(conclude(table(results, seeds), FIGURES, "error", "content", "content"))
        lines += ["## In short", *advice(results, found, len(seeds)), ""]
        part = replace(PART, arms=dict.fromkeys(ARMS))
        lines += [f"## {part.title}", *reading(sizes), "", *rows(part, found), "", *conclusion(part, found), ""]
        panels = [dots(f, {a: found["arms"][a][f.name] for a in ARMS[1:]}, found["earning"]) for f in pictured()]
        drawn = figures.render([panels[:2], panels[2:]])
        lines += [save_picture(page, "figures", drawn, PART.title), ""]
    lines += [
        *curves(page, results),
        *longer(results, sizes),
        *crossed(results, sizes),
        *spreads(helios),
        *strips(page, results),
        "",
        ADVICE,
        "",
        FACTORS,
    ]
    write(page, "\n".join(lines).rstrip() + "\n")


def pictured() -> list:
    """The figures that are drawn."""
    return [f for f in FIGURES if f.name in PART.pictured]


def opening(results: KeptResults, sizes: ControlSizes, seeds: list[str], command: str) -> list[str]:
    """How it was measured, what is there, and how to go on."""
    count = sum(len(made) for policy, made in results.arms.items() if policy not in ALIKE)
    lines = [
        "helios-tiny, Distilled, 64x64: the transformer is frozen; trained are a patch embedding of the control "
        f"latents and a LoRA of rank {sizes.rank}, {sizes.steps} steps of {sizes.batch} chunks each, on drawn objects "
        "on smooth random paths, their captions' motions drawn at random. The control is a white disc where "
        f"the object is. Each adapter makes {sizes.videos} videos of {sizes.chunks} chunks of 33 frames, on paths of "
        "other draws, two thirds of them of kinds (straight lines with corners, figures of eight) that no training "
        "shows; all is read from the pixels and latents.",
        "",
        f"There are {count} of {sizes.seeds * (len(ARMS) - len(ALIKE))} adapters ({len(seeds)} of {sizes.seeds} seeds "
        f"with every policy), {results.held['seconds'] / 60:.0f} minutes of training and measuring. {rerun(command)} "
        "It goes on where it was stopped, adapter by adapter, and trains nothing that is there.",
    ]
    if missing := [f"{p} {s}" for s in range(sizes.seeds) for p in ARMS if str(s) not in results.arms.get(p, {})]:
        lines += ["", f"Not there yet: {', '.join(missing)}."]
    return lines


def reading(sizes: ControlSizes) -> list[str]:
    """What the table's columns are."""
    return [
        "`checkerboard error` is how far the power at the highest frequencies of a stage's clean estimate (4x4 latents "
        "at stage 2, 8x8 at stage 3) is from that of the drawn video's latents at that size, in doublings; `contrast "
        "error` the same of the frames' contrast, as a share. Means over all videos; in brackets the mean difference "
        "from `content` with its standard error: **bold** is better, *italic* worse, neither is too close to call. "
        + RULE
        + f" Of comparisons in which nothing differs, {100 * chance(max(2, sizes.seeds), sizes.videos):.1f} % are "
        "called better (simulated).",
    ]


def advice(results: KeptResults, found: dict, seeds: int) -> list[str]:
    """What to do, from the verdicts."""
    best, worse = found["result"], [a for a in ARMS if found["arms"][a]["error"]["verdict"] == "worse"]
    value = {a: found["arms"][a]["error"]["mean"] for a in ARMS}
    lines = [
        f"- **Train control adapters with `{best}`**: {value[best]:.2f} pixels from the path on average"
        + (f" (`content`: {value['content']:.2f})." if best != "content" else ", and no policy is clearly better.")
    ]
    if worse:
        told = ", ".join(f"`{a}` ({value[a]:.2f})" for a in worse)
        lines.append(f"- Clearly further from the path than `content`: {told}.")
    else:
        told = ", ".join(f"`{a}` {value[a]:.2f}" for a in ARMS)
        lines.append(f"- No policy is clearly further from the path than `content` in {seeds} seeds ({told} pixels).")
    lines += [f"- {told}" for told in (closed(results), mismatched(results)) if told]
    gain = "`analytic` is `noise` to rounding here, a gain of 2 and 4, for the kernel is the mean of 2x2 cells: the"
    return [*lines, f"- {gain} same adapters stand for both. Whatever it does to control latents, noise needs it."]


def closed(results: KeptResults) -> str:
    """Whether what sets two policies apart at first is left after a longer training; empty where that is not known."""
    if not all(p in results.longer and "0" in results.arms.get(p, {}) for p in LONGER):
        return ""
    early, late = (
        [float(np.mean([row["error"] for row in held[p]["0"]["rows"]])) for p in LONGER]
        for held in (results.arms, results.longer)
    )
    told = [f"`{p}` comes from {a:.2f} to {b:.2f} pixels" for p, a, b in zip(LONGER, early, late)]
    stays = abs(late[0] - late[1]) > abs(early[0] - early[1]) / 2
    end = "the gap stays" if stays else "most of what sets them apart is how soon it is learned"
    return f"Trained longer (one seed), {' and '.join(told)}: {end}."


def mismatched(results: KeptResults) -> str:
    """What another policy at inference does to an adapter that was trained longer; empty where it is not known."""
    found = results.longer_matrix
    if not all(set(found.get(policy, {})) == set(ARMS) for policy in LONGER):
        return ""
    parts = []
    for figure in (ERROR, *BOARDS, CONTRAST):
        own = np.mean([mean_of(found[p][p], figure) for p in LONGER])
        other = np.mean([mean_of(found[a][b], figure) for a, b in (LONGER, LONGER[::-1])])
        parts.append(f"{figure.title} {own:.{figure.digits}f} and {other:.{figure.digits}f}")
    return (
        "**At inference take the policy of the training**, which the adapter's file names. Of the longer trained, with "
        f"their own and with each other's: {'; '.join(parts)}."
    )


def mean_of(rows: list[dict], figure) -> float:
    """A figure's mean over videos."""
    return float(np.mean([row[figure.name] for row in rows]))


def curves(page: Path, results: KeptResults) -> list[str]:
    """The training losses."""
    there = {p: made for p in ARMS if (made := results.arms.get(p))}
    if not there:
        return []
    steps = next(iter(next(iter(there.values())).values()))["curve"][0]
    series = {policy: [one["curve"][1] for one in made.values()] for policy, made in there.items()}
    panel = figures.Lines(series, "training loss", x=steps, x_label="optimiser step", size=(6.4, 3.0))
    return ["## Training", save_picture(page, "loss", figures.render([[panel]]), "Training loss"), ""]


def longer(results: KeptResults, sizes: ControlSizes) -> list[str]:
    """What more steps change: learned sooner, or learned better."""
    there = [p for p in LONGER if p in results.longer and "0" in results.arms.get(p, {})]
    if not there:
        return []
    lines = [
        "## Trained longer",
        f"The first seed again, {sizes.longer} times as long, on the same videos: is a policy only learned sooner?",
        "",
        f"| policy | steps | {NEAR.title} | {ERROR.title} | {FIGURES[2].title} | training loss |",
        "|---|---|---|---|---|---|",
    ]
    for policy in there:
        both = ((sizes.steps, results.arms[policy]["0"]), (sizes.steps * sizes.longer, results.longer[policy]["0"]))
        for steps, made in both:
            cells = [f"{np.mean([r[f.name] for r in made['rows']]) * f.scale:.{f.digits}f}" for f in FIGURES[:3]]
            lines.append(f"| `{policy}` | {steps} | {' | '.join(cells)} | {made['loss']:.3f} |")
    return [*lines, ""]


def crossed(results: KeptResults, sizes: ControlSizes) -> list[str]:
    """The tables of training policy against inference policy: of the longer training, then of the short one."""
    lines = []
    if results.longer_matrix:
        lines += [f"## Another policy at inference: adapters trained {sizes.longer} times as long", CELLS, ""]
        lines += matrix(results.longer_matrix, (NEAR, ERROR, *BOARDS, CONTRAST))
    if results.matrix:
        lines += ["## The same after the short training", SHORT, "", *matrix(results.matrix, (NEAR, ERROR, *BOARDS))]
    return lines


def matrix(found: dict, shown) -> list[str]:
    """A table per figure: rows are policies of the training, columns those used."""
    lines = []
    for figure in shown:
        lines += [f"| {figure.title} | {' | '.join(f'`{a}`' for a in ARMS)} |", "|---" * (1 + len(ARMS)) + "|"]
        for trained in (a for a in ARMS if a in found):
            values = [mean_of(found[trained][a], figure) * figure.scale if a in found[trained] else None for a in ARMS]
            cells = ["-" if v is None else f"{v:.{figure.digits}f}" for v in values]
            cells = [f"**{c}**" if a == trained else c for a, c in zip(ARMS, cells)]
            lines.append(f"| `{trained}` | {' | '.join(cells)} |")
        lines.append("")
    return lines


def spreads(helios) -> list[str]:
    """What each policy does to control latents and to noise: their spread at every stage."""
    from ...drawn import draw_track, random_tracked
    from ...training.control import encode_whole

    rng = np.random.default_rng(5)
    tracks = [random_tracked(rng, helios.config.frames_per_chunk, fitting=0.0) for _ in range(4)]
    z = helios.normalise(
        helios.backend.array(np.stack([encode_whole(helios, draw_track(t.centres, t.radius)).numpy() for t in tracks]))
    )
    noise = helios.backend.array(rng.standard_normal(z.shape, dtype=np.float32))
    lines = ["## What a policy does to the latents", "Standard deviation at 8x8, 4x4 and 2x2 latents.", ""]
    lines += ["| policy | what it is | control latents | white noise |", "|---|---|---|---|"]
    for policy in ARMS:
        told = []
        for x in (z, noise):
            levels = build(x, (2, 2), policy).arrays
            told.append(", ".join(f"{float(level.std()):.2f}" for level in levels))
        lines.append(f"| `{policy}` | {WHAT[policy]} | {told[0]} | {told[1]} |")
    return [*lines, ""]


def strips(page: Path, results: KeptResults) -> list[str]:
    """Frames of the first seed's adapters."""
    folder = page.with_suffix("")
    there = [p for p in ARMS if "0" in results.arms.get(p, {}) and (folder / f"strip_{p}.webp").is_file()]
    if not there:
        return []
    lines = ["## Frames", f"{STRIPS} videos on the same paths, {'each adapter of seed 0'}."]
    return [*lines, *(line for p in there for line in ("", f"`{p}`", "", f"![{p}]({folder.name}/strip_{p}.webp)"))]
