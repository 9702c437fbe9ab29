"""The arms of the study: an adapter per variance policy and seed, trained for equal steps and measured; one by one.

What is measured is kept in one small file beside the page, so that the page can be drawn anew without training. What is
trained lies in the study's folder and goes on from its checkpoint.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ... import load
from ...disk import write
from ...pyramid import downsample
from ...training.control import ControlledClips, ControlPlan, clips_of, drawn_pairs, train_adapter
from ..experiment import fingerprint, plain
from .measure import DrawnVideo, Truth, drawn_videos, measure, truth_of

VERSION = 1  # of the measures
ARMS = ("content", "noise", "match", "match_channel", "analytic")
LONGER = ("content", "noise")  # trained on, to tell what is learned sooner from what is learned better
ALIKE = {"analytic": "noise"}  # the same numbers to rounding for means of whole cells: not trained twice
SAME = 1e-5  # of the latents' size
STRIPS, STRIP_FRAMES = 3, 9


@dataclass(frozen=True)
class ControlSizes:
    """seeds: adapters of each policy; steps, batch, rank, shards: of a training; videos, chunks: that each adapter is
    measured on; crossed: videos of one chunk for every pair of training and inference policy; longer: times the steps
    of a longer training of the policies LONGER, first seed; 0: none."""

    seeds: int = 3
    steps: int = 180
    batch: int = 6
    rank: int = 16
    shards: int = 8
    videos: int = 12
    chunks: int = 2
    crossed: int = 6
    longer: int = 2

    def plan(self, policy: str, seed: int) -> ControlPlan:
        """How an arm is trained."""
        how = {"steps": self.steps, "batch": self.batch, "rank": self.rank, "shards": self.shards}
        return ControlPlan(policy=policy, seed=seed, save_every=25, log_every=10 if self.steps >= 50 else 1, **how)


QUICK = ControlSizes(seeds=2, steps=4, batch=2, rank=2, shards=1, videos=3, chunks=1, crossed=3)


class KeptResults:
    """What was measured. arms: policy -> seed -> {rows, loss, curve}; matrix: training policy -> inference policy ->
    rows. ValueError for a file that was measured otherwise."""

    def __init__(self, file: Path, made_of: dict):
        self.file, self.held = (
            file,
            {"made_of": made_of, "arms": {}, "matrix": {}, "longer": {}, "longer_matrix": {}, "seconds": 0.0},
        )
        if not file.is_file():
            return
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.get("made_of") != made_of:
            raise ValueError(f"{file} holds a study of other sizes or weights; give another --page, or remove it")
        self.held = found

    @property
    def arms(self) -> dict:
        """By policy and seed."""
        return self.held["arms"]

    @property
    def longer_matrix(self) -> dict:
        """By training policy, of a longer training, and inference policy."""
        return self.held["longer_matrix"]

    @property
    def longer(self) -> dict:
        """By policy and seed."""
        return self.held["longer"]

    @property
    def matrix(self) -> dict:
        """By training and inference policy."""
        return self.held["matrix"]

    def keep(self, part: str, first: str, second: str, value, seconds: float) -> None:
        """One more entry, written at once."""
        self.held[part].setdefault(first, {})[second] = short(plain(value))
        self.held["seconds"] = round(self.held["seconds"] + seconds, 1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write(self.file, json.dumps(self.held, allow_nan=False) + "\n")


def short(value):
    """Numbers with five digits behind the point, so that the file stays small."""
    if isinstance(value, dict):
        return {name: short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [short(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value


def made_of(helios, sizes: ControlSizes) -> dict:
    """What results depend on."""
    return {"version": VERSION, "weights": fingerprint(helios), "sizes": asdict(sizes)}


def jobs(sizes: ControlSizes) -> Iterator[tuple[str, int]]:
    """Policy and seed of every arm: all policies of a seed before the next one."""
    yield from ((policy, seed) for seed in range(sizes.seeds) for policy in ARMS)


class ArmBench:
    """What all arms share, made when it is first asked for."""

    def __init__(self, helios, sizes: ControlSizes, folder: Path):
        self.helios, self.sizes, self.folder = helios, sizes, folder
        self.base = load(helios.checkpoint.path, backend="torch", weight_dtype="fp32")  # to train on
        self._clips: ControlledClips | None = None
        self._videos: list[tuple[DrawnVideo, Truth]] | None = None

    @property
    def clips(self) -> ControlledClips:
        """What is trained on."""
        if self._clips is None:
            pairs = drawn_pairs(self.helios, self.folder / "pairs", self.sizes.shards, "track")
            self._clips = clips_of(self.helios, pairs)
        return self._clips

    @property
    def videos(self) -> list[tuple[DrawnVideo, Truth]]:
        """What is measured on."""
        if self._videos is None:
            found = drawn_videos(self.helios, self.sizes.videos, self.sizes.chunks)
            self._videos = [(one, truth_of(self.helios, one)) for one in found]
        return self._videos

    def trained_as(self, policy: str) -> str:
        """The policy by whose adapter one is measured: its own, or one that makes the same latents of the controls.

        ValueError where they are not the same.
        """
        other = ALIKE.get(policy, policy)
        if other != policy and not alike(self.clips.controls[0], policy, other):
            raise ValueError(f"{policy} and {other} are not the same here; give each a training of its own")
        return other

    def adapter(self, policy: str, seed: int, times: int = 1) -> Path:
        """The file of an arm, trained if it is not there. times: so many times the steps."""
        name = f"{policy}-{seed}" + (f"-times-{times}" if times > 1 else "")
        place, plan = self.folder / name, self.sizes.plan(policy, seed)
        plan = replace(plan, steps=plan.steps * times)
        file = place / "adapter.safetensors"
        if not file.is_file():
            made = train_adapter(self.base, self.clips, plan, place / "control.pt")
            made.save(file, policy, "track")
        return file

    def arm(self, policy: str, seed: int, strip: Path | None, times: int = 1) -> dict:
        """Trained and measured: {rows, loss, curve}. strip: where frames of the first videos are kept, if anywhere."""
        file = self.adapter(policy, seed, times)
        rows, frames = measure(self.helios, file, self.videos, seed, self.sizes.chunks)
        if strip is not None:
            save_strip(strip, frames[:STRIPS])
        steps, curve = losses(file.with_name("control.csv"))
        return {"rows": rows, "loss": float(np.mean(curve[-max(1, len(curve) // 5) :])), "curve": [steps, curve]}

    def crossed(self, trained: str, used: str, times: int = 1) -> list[dict]:
        """Rows of the first seed's adapter of one policy, used with another. times: of the longer training."""
        videos = self.videos[: self.sizes.crossed]
        return measure(self.helios, self.adapter(trained, 0, times), videos, 0, 1, policy=used)[0]


def alike(z, one: str, other: str) -> bool:
    """Whether two policies make the same of latents [c t h w] at every stage, to rounding."""
    pairs = [(downsample(z[None], (2,) * k, one), downsample(z[None], (2,) * k, other)) for k in (1, 2)]
    return all(float(abs(a - b).max()) <= SAME * float(abs(a).max()) for a, b in pairs)


def losses(log: Path) -> tuple[list[int], list[float]]:
    """Steps and losses of a training's log."""
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


def save_strip(file: Path, frames: np.ndarray) -> None:
    """Frames [v t h w 3] of some videos, a row each, as a small WebP."""
    picks = np.linspace(0, frames.shape[1] - 1, STRIP_FRAMES).round().astype(int)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = np.concatenate([np.concatenate(list(video[picks]), axis=1) for video in frames])
    Image.fromarray(picture).save(file, quality=70)


def run(
    bench: ArmBench, results: KeptResults, clock: Callable[[], float], tell: Callable[[str], None]
) -> Iterator[None]:
    """Trains and measures what is missing; yields after each part, when the page may be written."""
    todo, strips = list(jobs(bench.sizes)), results.file.parent
    for i, (policy, seed) in enumerate(todo):
        if str(seed) in results.arms.get(policy, {}):
            continue
        start, other = clock(), bench.trained_as(policy)
        found = results.arms.get(other, {}).get(str(seed)) if other != policy else None
        found = found or bench.arm(policy, seed, strips / f"strip_{policy}.webp" if seed == 0 else None)
        results.keep("arms", policy, str(seed), found, clock() - start)
        tell(f"{i + 1}/{len(todo)} {policy}, seed {seed}: {clock() - start:.0f} s")
        yield
        if (policy, seed) == (ARMS[-1], 0):
            yield from cross(bench, results, clock, tell)
    yield from cross(bench, results, clock, tell)
    for policy in LONGER if bench.sizes.longer else ():
        yield from lengthen(bench, results, policy, clock, tell)


def lengthen(bench: ArmBench, results: KeptResults, policy: str, clock: Callable[[], float], tell) -> Iterator[None]:
    """The longer training of a policy, and what other policies make of its adapter at inference."""
    start, times = clock(), bench.sizes.longer
    if policy not in results.longer:
        results.keep("longer", policy, "0", bench.arm(policy, 0, None, times), clock() - start)
        tell(f"{policy}, {times} times as long: {clock() - start:.0f} s")
        yield
    for used in (used for used in ARMS if used not in results.longer_matrix.get(policy, {})):
        start, own = clock(), bench.trained_as(used)
        found = results.longer_matrix.get(policy, {}).get(own) if own != used else None
        results.keep("longer_matrix", policy, used, found or bench.crossed(policy, own, times), clock() - start)
    yield


def cross(
    bench: ArmBench, results: KeptResults, clock: Callable[[], float], tell: Callable[[str], None]
) -> Iterator[None]:
    """Every pair of training and inference policy that is not measured yet."""
    for trained in ARMS:
        for used in (used for used in ARMS if used not in results.matrix.get(trained, {})):
            start, own = clock(), (bench.trained_as(trained), bench.trained_as(used))
            found = None if own == (trained, used) else results.matrix.get(own[0], {}).get(own[1])
            results.keep("matrix", trained, used, found or bench.crossed(*own), clock() - start)
        tell(f"trained with {trained}, used with each policy")
        yield
