"""The bench: drawn prompts, rendered by a checkpoint and measured from the pixels alone, chunk by chunk.

Videos of one batch grow together, and of each only numbers are kept (and a few frames for the film strips), so that a
minute of many videos fits into memory. Sources of the measures: reading.py, against_scene.py, measure/joints.py.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..disk import replacing, safe_files
from ..measure import figures, frame_statistics, joints
from .against_scene import ChunkReading, read_chunk
from .per_video import PerVideoDrift
from .scenes import SIZE, Scene, random_scene

ATTRIBUTES = ("colour", "shape", "motion", "background", "count")
DRIFTS = ("colour_error", "size", "contrast", "sharpness")
UNITS = {
    "colour_error": "distance in RGB, 0 to 1",
    "size": "area over the scene's",
    "contrast": "std of luma, 0 to 1",
    "sharpness": "gradient over contrast",
}
STRIPS, STRIP_FRAMES = 6, 12  # film strips on the sheet, frames of each


@dataclass
class Video:
    """What is kept of one video."""

    scene: Scene
    seed: int
    readings: list[ChunkReading] = field(default_factory=list)
    statistics: list[dict[str, np.ndarray]] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    last: np.ndarray | None = None

    def add(self, chunk: int, frames: np.ndarray, latent, *, keep: bool) -> None:
        """Measures a chunk's uint8 frames [t h w 3]; keep: also three of them, for a film strip."""
        self.readings.append(read_chunk(frames, self.scene, chunk, latent))
        self.statistics.append(frame_statistics(frames, self.last))
        self.last = frames[-1]
        if keep:
            self.frames += list(frames[[0, len(frames) // 2, -1]])

    def joints(self) -> dict:
        """`joints.joints` of the whole video."""
        size = len(self.statistics[0]["luma"])
        return joints({k: np.concatenate([s[k] for s in self.statistics]) for k in self.statistics[0]}, size)


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Scenes of combinations that training never shows."""
    rng = np.random.default_rng((seed, 23))
    return [random_scene(rng, held_out=True) for _ in range(count)]


def render(
    helios, scenes, seed: int, chunks: int, *, looks=None, start=None, remember=None, **options
) -> Iterator[tuple[int, list[np.ndarray], object]]:
    """(chunk, uint8 frames [t h w 3] per scene, latents [b c t h w]); the scenes as one batch. options: of `sample`.

    looks: the chunks to decode, all if left open; others come without frames. start(history): the coarsest start point
    of its next chunk. remember(history, latents): the history with them appended.
    """
    history = helios.history(SIZE, SIZE, batch=len(scenes))
    positive = helios.text([scene.caption() for scene in scenes])
    for chunk in range(chunks):
        first = {} if start is None else {"start": start(history)}
        *_, last = helios.sample(history, positive, seed=seed, **first, **options)
        history = history.append(last.latent) if remember is None else remember(history, last.latent)
        shown = last.latent if looks is None or chunk in looks else ()
        yield chunk, [helios.decode(z[None]) for z in shown], last.latent


def run(helios, scenes, seeds, chunks: int, **how) -> tuple[list[Video], float]:
    """The measured videos of every scene with every seed, and frames per second over all of it. how: as `grow` has it.

    ValueError where the report, which comes after, could not be drawn.
    """
    *_, last = grow(helios, scenes, seeds, chunks, **how)
    return last.videos, last.fps


class Grown(NamedTuple):
    """The videos of finished batches, and frames per second up to now."""

    videos: list[Video]
    fps: float


def grow(helios, scenes, seeds, chunks: int, *, batch: int = 16, drift=None, **options) -> Iterator[Grown]:
    """`run`, step by step: one per chunk of a batch, and one at the end.

    drift: the DriftPolicy of their histories; options: of `sample`. ValueError where the report, which comes after,
    could not be drawn.
    """
    figures.require()
    videos, start, made = [], time.perf_counter(), 0
    for part in batches(scenes, seeds, batch):
        for grown, frames in grow_batch(helios, part, chunks, drift=drift, **options):  # noqa: B007
            made += frames
            yield Grown(videos, made / (time.perf_counter() - start))
        videos += grown
    yield Grown(videos, made / (time.perf_counter() - start))


class Batch(NamedTuple):
    """Videos that grow together. first: the number of the first scene, which with the seed makes the noise; strips: of
    how many of them film strips are kept."""

    scenes: list[Scene]
    seed: int
    first: int
    strips: int


def batches(scenes, seeds, size: int) -> list[Batch]:
    """Every scene with every seed, in batches of at most that size; in whatever order they are made, they are the same
    videos."""
    starts = [(seed, i) for seed in seeds for i in range(0, len(scenes), size)]
    before = [sum(len(scenes[j : j + size]) for _, j in starts[:k]) for k in range(len(starts))]
    return [Batch(scenes[i : i + size], seed, i, STRIPS - n) for (seed, i), n in zip(starts, before, strict=True)]


def grow_batch(helios, batch: Batch, chunks: int, *, drift=None, **options) -> Iterator[tuple[list[Video], int]]:
    """The videos of a batch as they grow, and how many frames a chunk of it has brought. drift, options: of `grow`."""
    videos = [Video(scene, batch.seed) for scene in batch.scenes]
    seed = batch.seed + batch.first
    memory = drift and PerVideoDrift(helios, drift, seed)
    for chunk, frames, latents in render(helios, batch.scenes, seed, chunks, remember=memory, **options):
        for n, (video, shown, latent) in enumerate(zip(videos, frames, latents)):
            video.add(chunk, shown, latent, keep=n < batch.strips)
        yield videos, sum(map(len, frames))


def summarise(videos: list[Video], fps: float) -> dict:
    """Means over the videos per chunk, medians of the joints, and the figure of merit. fps: frames per second."""
    rows = [[v.readings[k] for v in videos] for k in range(len(videos[0].readings))]
    summary = {name: [float(np.mean([getattr(r, name) for r in row])) for row in rows] for name in ATTRIBUTES + DRIFTS}
    moments = {
        f"latent_{m}": [np.mean([getattr(r, f"latent_{m}") for r in row], axis=0).tolist() for row in rows]
        for m in ("mean", "std")
    }
    summary |= {**moments, "frames per second": fps, "merit": merit(summary)}
    if len(rows) > 1:
        found = [v.joints() for v in videos]
        summary["joints"] = {
            name: {where: float(np.median([f[name][where] for f in found])) for where in ("jump", "inside")}
            for name in found[0]
        }
    return summary


def merit(summary: dict) -> float:
    """One figure for a setting: the mean of the five accuracies over all chunks, 0..1."""
    return float(np.mean([summary[name] for name in ATTRIBUTES]))


FILES = ("results.json", "results.csv", "table.md", "sheet.png")  # of a report


def write(folder: Path, results: dict[str, tuple[list[Video], dict]]) -> None:
    """results.json (all), results.csv (a row per setting, video and chunk), table.md, sheet.png. results: by name.

    ValueError where matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = {name: summary for name, (_, summary) in results.items()}
    safe_files.write(folder / "results.json", json.dumps(report, indent=1) + "\n")
    with replacing(folder / "results.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        names = ("chunk", *ATTRIBUTES, *DRIFTS)
        table = csv.writer(file)
        table.writerow(["setting", "prompt", "seed", *names])
        for setting, (videos, _) in results.items():
            for video in videos:
                start = [setting, video.scene.caption(), video.seed]
                table.writerows([*start, *(getattr(r, n) for n in names)] for r in video.readings)
    safe_files.write(folder / "table.md", table_of(report))
    with replacing(folder / "sheet.png") as part:
        draw_sheet(results).save(part, "PNG")


def table_of(report: dict[str, dict]) -> str:
    """A Markdown row per setting: accuracies in percent as "first chunk / last chunk", merit, frames per second."""
    head = ["setting", *ATTRIBUTES, "merit", "frames/s"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for setting, summary in report.items():
        pairs = [f"{100 * summary[a][0]:.0f} / {100 * summary[a][-1]:.0f}" for a in ATTRIBUTES]
        row = [setting, *pairs, f"{100 * summary['merit']:.1f}", f"{summary['frames per second']:.0f}"]
        lines.append(" | ".join(row))
    return "".join(f"| {line} |\n" for line in lines)


def draw_sheet(results: dict[str, tuple[list[Video], dict]]):
    """Attributes and drifts over the chunks, a line per setting; film strips of each setting's first videos."""
    chunks = range(1, 1 + max(len(summary["colour"]) for _, summary in results.values()))
    rows = []
    for names, limits in ((ATTRIBUTES, (0, 1.02)), (DRIFTS, None)):
        series = {name: {setting: summary[name] for setting, (_, summary) in results.items()} for name in names}
        shared = {"x": chunks, "x_label": "chunk", "limits": limits, "size": (2.9, 2.1)}
        units = {name: UNITS.get(name, "share that is true") for name in names}
        rows.append([figures.Lines(series[n], n.replace("_", " "), y_label=units[n], **shared) for n in names])
    for setting, (videos, _) in results.items():
        for video in (v for v in videos[:STRIPS] if v.frames):
            caption = f"{setting}: {video.scene.caption()}"
            rows.append([figures.Strip(np.stack(video.frames), caption, STRIP_FRAMES)])
    return figures.render(rows)
