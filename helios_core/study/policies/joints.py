"""Boundary policies: at the joints of rendered videos, and at joints that are drawn, where the truth is known."""

from __future__ import annotations

import numpy as np

from ...drawn import draw, render
from ...join import Boundary, Tail, follow
from ...measure import frame_statistics, joints
from ..experiment import PolicySizes, StudyPart, draw_scenes
from ..paired import Figure

REACH = 12  # frames after a joint that are looked at: as many as the longest arm may change
MOST = 60.0  # dB: as good as untouched
LEAST_EDGES = 0.005  # of the edges: a loss up to this is none
STATISTICS = {"luma": "luma", "contrast": "contrast", "sharpness": "sharpness", "difference": "pixels"}
ARMS = {
    "none": Boundary(),
    "match": Boundary("match"),
    "match, 12 frames": Boundary("match", 12),
    "crossfade": Boundary("crossfade"),
    "crossfade, 2 frames": Boundary("crossfade", 2),
    "drop first frame": Boundary(drop_first_frame=True),
    "match, drop first frame": Boundary("match", drop_first_frame=True),
}


def edges(frames: np.ndarray) -> float:
    """Root mean square of the luma's gradient, over its contrast: edges that are halved and doubled up lose of it."""
    luma = frames.astype(np.float32).mean(axis=-1)
    power = (np.diff(luma, axis=1) ** 2).mean() + (np.diff(luma, axis=2) ** 2).mean()
    return float(power**0.5 / max(luma.std(axis=(1, 2)).mean(), 1e-6))


class Joined:
    """One video under one policy."""

    def __init__(self, boundary: Boundary):
        self.boundary, self.tail, self.last = boundary, None, None
        self.statistics, self.kept, self.changed = [], [], []

    def add(self, frames: np.ndarray) -> None:
        """Its next chunk as decoded, uint8 [t h w 3]."""
        (shown,) = follow([frames], self.tail, self.boundary)
        if self.tail is not None:
            plain = frames[len(frames) - len(shown) :][:REACH]
            self.kept.append(edges(shown[:REACH]) / max(edges(plain), 1e-6))
            self.changed.append(abs(shown[:REACH].astype(float) - plain).mean())
        self.statistics.append(frame_statistics(shown, self.last))
        self.tail, self.last = Tail.of(shown), shown[-1]

    def figures(self) -> dict[str, float]:
        """jump, inside: medians as in `joints`; excess: what a jump has over the inside."""
        whole = {k: np.concatenate([s[k] for s in self.statistics]) for k in self.statistics[0]}
        if self.boundary.drop_first_frame:  # of the first chunk too, so that all have one length
            whole = {k: v[1:] for k, v in whole.items()}
        found = joints(whole, len(self.statistics[-1]["luma"]))
        figures = {"edges": np.mean(self.kept), "changed": np.mean(self.changed)}
        for name, values in found.items():
            figures |= {f"{name}_{where}": value for where, value in values.items()}
            figures[f"{name}_excess"] = max(0.0, values["jump"] - values["inside"])
        return figures


def measure_joints(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """Every arm joins the same chunks."""
    videos = {arm: [Joined(boundary) for _ in scenes] for arm, boundary in arms.items()}
    for _, shown, _ in render(helios, scenes, seed, sizes.joint_chunks):
        for row in videos.values():
            for video, frames in zip(row, shown):
                video.add(frames)
    return {arm: [{"figures": video.figures()} for video in row] for arm, row in videos.items()}


JOINTS = StudyPart(
    name="joints",
    title="Joints of rendered chunks",
    text="The same chunks are joined by each policy. `beyond` is by how much the median change at the joints exceeds "
    "the median change between the other frames, 0 where it does not; luma, contrast and sharpness in percent of the "
    "frame before, pixels in percent of white. `edges kept` is the sharpness (root mean square gradient over "
    f"contrast) of the first {REACH} frames after a joint against the same frames untouched, "
    f"{100 * LEAST_EDGES:g} % less or more being none; `changed` is what was "
    "done to them, in levels of 255. Doing nothing is `none`, as the reference joins, and nodes and commands do so "
    "unless told otherwise: what helps a toy is advice for a large model, not yet its default.",
    arms=ARMS,
    baseline="none",
    default=Boundary().policy,
    figures=(
        *(Figure(f"{k}_excess", f"{t} beyond, %", "low", 100, 2) for k, t in STATISTICS.items()),
        Figure("edges", "edges kept, %", "high", 100, 2, least=LEAST_EDGES),
        *(Figure(f"{k}_jump", f"{t} jump, %", "", 100, 2) for k, t in STATISTICS.items()),
        *(Figure(f"{k}_inside", f"{t} inside, %", "", 100, 2) for k, t in STATISTICS.items()),
        Figure("changed", "changed"),
    ),
    decides="contrast_excess",
    measure=measure_joints,
    pictured=("luma_excess", "contrast_excess", "difference_excess", "edges"),
)


def faults(after: np.ndarray, other: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> the chunk with a fault, and the truth. other: what a scene cut leads to."""
    middle = after.mean(axis=(1, 2), keepdims=True)
    flat = np.rint(middle + (after - middle) * 0.93).clip(0, 255).astype(np.uint8)
    dark = np.maximum(after.astype(int) - 8, 0).astype(np.uint8)
    return {"clean": (after, after), "contrast": (flat, after), "light": (dark, after), "cut": (other, other)}


def psnr(frames: np.ndarray, wanted: np.ndarray) -> float:
    """dB, at most MOST."""
    error = ((frames.astype(np.float64) - wanted) ** 2).mean()
    return float(min(MOST, 10 * np.log10(255**2 / max(error, 1e-9))))


def measure_drawn(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """Drawn videos, cut in two, the second half with each fault."""
    drawn, found = draw_scenes(len(scenes) + 1, seed), {arm: [] for arm in arms}
    for scene, other in zip(drawn, drawn[1:]):
        before, after = draw(scene, 33), draw(scene, REACH + 1, first=33)
        halves = faults(after, draw(other, REACH + 1))
        for arm, boundary in arms.items():
            figures = {}
            for fault, (faulty, wanted) in halves.items():
                (shown,) = follow([faulty], Tail.of(before), boundary)
                wanted = wanted[len(wanted) - len(shown) :][:REACH]
                figures[fault] = psnr(shown[:REACH], wanted)
            found[arm].append({"figures": figures})
    return found


DRAWN = StudyPart(
    name="drawn",
    title="Joints of drawn videos, where the truth is known",
    text="A drawn video is cut in two, and the second half is given a fault: none, 7 % less contrast, 8 levels less "
    f"light, or another scene. PSNR of the first {REACH} frames after the joint against the truth, in dB; {MOST:g} "
    "stands for untouched. Doing nothing is `none`. Whether rendered chunks have such faults, the part before tells.",
    arms=ARMS,
    baseline="none",
    default="",
    figures=(
        Figure("contrast", "less contrast", "high", 1, 2),
        Figure("light", "less light", "high", 1, 2),
        Figure("clean", "no fault", "high", 1, 2),
        Figure("cut", "scene cut", "high", 1, 2),
    ),
    decides="contrast",
    measure=measure_drawn,
    pictured=("contrast", "light", "clean", "cut"),
)
