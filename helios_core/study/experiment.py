"""A study in parts: each measures its arms on the same prompts and seeds. What is measured stays on disk.

One file per part and seed (and arm, where arms are rendered one by one) holds the figures of its videos and what they
were made of: checkpoint, sizes, arm. A rerun reads the files that still fit and measures the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..disk import write
from ..drawn import Scene, held_out_scenes, random_scene
from .paired import Figure, conclude

VERSION = 1  # of the measures: files of another are measured again
SEED_STRIDE = 1000  # element i of a batch has seed + i


@dataclass(frozen=True)
class PolicySizes:
    """How much is measured. prompts, seeds: videos of each arm; chunks: of a long video; joint_chunks: of one whose
    joints are measured; looks: chunks of a long video that are decoded and read. ValueError for too few of them."""

    prompts: int = 12
    seeds: int = 3
    chunks: int = 44
    joint_chunks: int = 12
    looks: int = 8

    def __post_init__(self):
        if min(self.prompts, self.seeds, self.looks) < 1 or self.chunks < 2 or self.joint_chunks < 2:
            raise ValueError("the study wants at least 1 prompt, 1 seed, 1 look and 2 chunks")

    def looked_at(self) -> list[int]:
        """Chunks that are decoded, from the first to the last."""
        return sorted(set(np.linspace(0, self.chunks - 1, self.looks).round().astype(int).tolist()))


QUICK = PolicySizes(prompts=3, seeds=2, chunks=6, joint_chunks=3, looks=3)


@dataclass(frozen=True)
class StudyPart:
    """One question. arms: name -> what `measure` takes for it; baseline: the arm that does nothing.

    measure(helios, arms, scenes, seed, sizes) -> per arm one row per scene: {"figures": {name: value}, and, for plots,
    "curves": {name: values}}. one_by_one: a call, and a file, for every arm. decides: the figure that ranks the arms.
    default: today's, that the result may change; "" where there is none. pictured: the figures whose differences are
    drawn; curves: titles of those drawn, by name.
    """

    name: str
    title: str
    text: str
    arms: dict[str, Any]
    baseline: str
    default: str
    figures: tuple[Figure, ...]
    decides: str
    measure: Callable
    one_by_one: bool = False
    pictured: tuple[str, ...] = ()
    curves: dict[str, str] = field(default_factory=dict)


def fingerprint(helios) -> str:
    """Of a checkpoint's weights: a few digits that change with any of them."""
    found = hashlib.sha256()
    for file in sorted({f for source in helios.checkpoint.sources.values() for f in source.files}):
        found.update(Path(file).read_bytes())
    return found.hexdigest()[:12]


def jobs(parts, sizes: PolicySizes) -> Iterator[tuple[StudyPart, tuple[str, ...], int]]:
    """(part, arms measured together, seed's number)."""
    for part in parts:
        groups = [(arm,) for arm in part.arms] if part.one_by_one else [tuple(part.arms)]
        yield from ((part, group, seed) for group in groups for seed in range(sizes.seeds))


def file_of(folder: Path, part: StudyPart, arms: tuple[str, ...], seed: int) -> Path:
    """Where a job's figures are kept."""
    arm = "-" + re.sub(r"[^a-z0-9.]+", "-", arms[0]) if part.one_by_one else ""
    return folder / "measured" / f"{part.name}{arm}-{seed}.json"


class StudyJob(NamedTuple):
    """Arms that are measured together with one seed. made_of: what the rows depend on; file: where they are kept."""

    part: str
    arms: tuple[str, ...]
    seed: int
    made_of: dict
    file: Path

    @property
    def title(self) -> str:
        """In a line for people."""
        arms = self.arms[0] if len(self.arms) == 1 else "all arms"
        return f"{self.part}: {arms}, seed {self.seed}"


def all_jobs(helios, parts, sizes: PolicySizes, folder: Path) -> list[StudyJob]:
    """Those of a study, measured or not."""
    weights, found = fingerprint(helios), []
    for part, arms, seed in jobs(parts, sizes):
        made_of = {"version": VERSION, "weights": weights, "part": part.name, "arms": list(arms), "seed": seed}
        made_of |= {"sizes": asdict(sizes), "prompts": [s.caption() for s in held_out_scenes(sizes.prompts)]}
        found.append(StudyJob(part.name, arms, seed, made_of, file_of(folder, part, arms, seed)))
    return found


def measure_job(helios, job: StudyJob, parts, sizes: PolicySizes) -> dict:
    """What goes into a job's file. parts: its own among them."""
    part, start = next(part for part in parts if part.name == job.part), time.perf_counter()
    chosen, scenes = {arm: part.arms[arm] for arm in job.arms}, held_out_scenes(sizes.prompts)
    rows = plain(part.measure(helios, chosen, scenes, SEED_STRIDE * job.seed, sizes))
    return {"made_of": job.made_of, "seconds": round(time.perf_counter() - start, 2), "rows": rows}


def measure(helios, parts, sizes: PolicySizes, folder: Path, tell: Callable[[str], None] = print) -> dict:
    """All figures: part -> arm -> one list of rows per seed; measured, or read where they are. tell: of each job."""
    parts = tuple(parts)
    found = {part.name: {arm: [] for arm in part.arms} for part in parts}
    todo = all_jobs(helios, parts, sizes, folder)
    for i, job in enumerate(todo):
        rows = read(job.file, job.made_of)
        if rows is None:
            held = measure_job(helios, job, parts, sizes)
            write_json(job.file, held)
            rows = held["rows"]
            tell(f"{i + 1}/{len(todo)} {job.title}: {held['seconds']:.1f} s")
        for arm in job.arms:
            found[job.part][arm].append(rows[arm])
    return found


def read(file: Path, made_of: dict) -> dict | None:
    """The rows of a file that was made of just this, else None."""
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    return held["rows"] if held.get("made_of") == made_of else None


def write_json(file: Path, held: dict) -> None:
    """With its folder; all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, json.dumps(held, indent=1, allow_nan=False) + "\n")


def plain(value):
    """Numbers and containers as JSON takes them, which has no NaN: that becomes None."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def seconds(folder: Path) -> float:
    """What all the measuring of a folder took, over however many runs."""
    return sum(json.loads(f.read_text(encoding="utf-8"))["seconds"] for f in (folder / "measured").glob("*.json"))


def table(part: StudyPart, found: dict) -> dict:
    """arm -> figure -> [seeds, prompts] of a part's rows; what is missing is NaN."""
    return {
        arm: {
            f.name: [[np.nan if (v := row["figures"][f.name]) is None else v for row in rows] for rows in seeds]
            for f in part.figures
        }
        for arm, seeds in found.items()
    }


def curves(part: StudyPart, found: dict) -> dict:
    """curve -> arm -> means over all videos."""
    rows = {arm: [row for group in seeds for row in group] for arm, seeds in found.items()}
    return {
        name: {arm: np.mean([row["curves"][name] for row in group], axis=0).tolist() for arm, group in rows.items()}
        for name in part.curves
    }


def results(parts, found: dict) -> dict:
    """What a report needs: per part its comparisons, conclusion and curves."""
    return {
        part.name: conclude(
            table(part, found[part.name]), part.figures, part.decides, part.baseline, part.default or part.baseline
        )
        | {"curves": curves(part, found[part.name])}
        for part in parts
    }


def draw_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes to draw rather than to render: any, by seed."""
    rng = np.random.default_rng((seed, 31))
    return [random_scene(rng) for _ in range(count)]
