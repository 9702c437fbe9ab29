"""Policies that change what is rendered: the variance of the starting noise, and what is remembered of a chunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ... import pyramid
from ...drawn import ATTRIBUTES, ChunkReading, PerVideoDrift, expected_contrast, read_chunk, render
from ...history import DriftPolicy, distances, measure, parse_policy
from ..experiment import PolicySizes, StudyPart
from ..paired import Figure

TRUTH = (
    Figure("accuracy", "all five attributes, %", "high", 100, 1),
    Figure("shape", "shape, %", "high", 100, 1),
    Figure("colour", "colour, %", "high", 100, 1),
    Figure("colour_error", "colour error", "low"),
    Figure("size_error", "size error", "low"),
    Figure("contrast_error", "contrast error", "low"),
)


def truth(reading: ChunkReading, scene) -> dict[str, float]:
    """A chunk against its scene: accuracy (mean of the five attributes), and how far colour, size, contrast are off.

    size_error: of the area, in parts of the scene's; contrast likewise.
    """
    return {
        "accuracy": float(np.mean([getattr(reading, name) for name in ATTRIBUTES])),
        "shape": float(reading.shape),
        "colour": float(reading.colour),
        "colour_error": reading.colour_error,
        "size_error": abs(reading.size - 1),
        "contrast_error": abs(reading.contrast / expected_contrast(scene, 33, 33 * reading.chunk) - 1),
    }


def measure_noise(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """First chunks from noise that was shrunk by each policy and kernel."""
    found = {}
    for arm, (policy, kernel) in arms.items():
        factors = (2,) * (helios.config.schedule.stages - 1)
        shrunk = []

        def start(history, policy=policy, kernel=kernel, shrunk=shrunk, factors=factors):
            shrunk.append(pyramid.downsample(helios.noise(history, seed), factors, policy, kernel=kernel))
            return shrunk[-1]

        ((_, shown, latents),) = render(helios, scenes, seed, 1, start=start)
        rows = zip(scenes, shown, map(np.asarray, latents), np.asarray(shrunk[0]))
        found[arm] = [{"figures": first_chunk(*row)} for row in rows]
    return found


def first_chunk(scene, frames: np.ndarray, latent: np.ndarray, start: np.ndarray) -> dict[str, float]:
    """The figures of one video."""
    reading = read_chunk(frames, scene, 0, latent)
    return truth(reading, scene) | {
        "start_std": start.std(),
        "latent_std": latent.std(),
        "contrast": reading.contrast,
    }


NOISE_KERNELS = ("nearest", "bilinear_aligned", "bicubic", "lanczos")
NOISE_ARMS = {
    f"{policy}, {kernel}": (policy, kernel)
    for policy, kernel in [
        *((policy, "area") for policy in ("content", "noise", "analytic", "match", "match_channel", "match_frame")),
        *((policy, kernel) for policy in ("noise", "analytic") for kernel in NOISE_KERNELS),
    ]
}
NOISE = StudyPart(
    name="noise",
    title="Variance of the noise",
    text="White noise of full size is shrunk to the coarsest stage by each policy and kernel, and a first chunk is "
    "rendered from it. Doing nothing is `content` with `area`: means of 4x4, and no gain. `start std` is what the "
    "model starts from, `chunk std` that of the finished chunk's latents. The reference, which every checkpoint was "
    "trained with, is `noise` with `area`.",
    arms=NOISE_ARMS,
    baseline="content, area",
    default="noise, area",
    figures=(
        *TRUTH,
        Figure("contrast", "contrast"),
        Figure("start_std", "start std"),
        Figure("latent_std", "chunk std"),
    ),
    decides="accuracy",
    measure=measure_noise,
    one_by_one=True,
    pictured=("accuracy", "colour_error", "contrast_error"),
)


def measure_drift(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """Long videos; the chunks at `looked_at` are decoded and read, the latents of all are measured."""
    found = {}
    for arm, policy in arms.items():
        memory, looks = PerVideoDrift(helios, policy, seed), sizes.looked_at()
        truths, moments = [[] for _ in scenes], []
        options = {"looks": looks, "remember": memory}
        for chunk, shown, latents in render(helios, scenes, seed, sizes.chunks, **options):
            moments.append(np.asarray(measure(latents)))
            for seen, frames, scene in zip(truths, shown, scenes):
                seen.append(truth(read_chunk(frames, scene, chunk), scene))
        moments = np.stack(moments, axis=1)
        found[arm] = [minute(*row) for row in zip(truths, moments, zip(*memory.found))]
    return found


def minute(seen: list[dict], moments: np.ndarray, corrected) -> dict:
    """The figures and curves of one long video. moments [chunks c 2]; corrected: whether drift was found, per chunk.

    The end is the last third of the looks, and of the chunks.
    """
    curves = {name: [s[name] for s in seen] for name in seen[0]}
    curves["moments"] = [sum(distances(m[None], moments[:1])) for m in moments]
    curves["latent_std"] = (moments[..., 1] ** 0.5).mean(axis=-1).tolist()
    figures = {f"{name}_end": float(np.mean(c[-max(1, len(c) // 3) :])) for name, c in curves.items()}
    whole = {"accuracy": float(np.mean(curves["accuracy"])), "found": float(np.mean(corrected))}
    return {"figures": figures | whole, "curves": curves}


DRIFT_ARMS = ("off", "corrupt:0.1", "corrupt:0.3", "renormalise:0.5", "renormalise:1", "anchor:0.5", "anchor:1")
DRIFT = StudyPart(
    name="drift",
    title="Anti-drift",
    text="Long videos, with what the model remembers of a chunk corrected wherever drift is found in it. Chunks are "
    "read at even distances; the end is the last third. Doing nothing is `off`. `moments` is how far the chunk's "
    "means and variances are from those of the first; a figure that is only shown, for a picture that rightly "
    "changes moves them as well. `found` is the share of chunks in which drift was found.",
    arms={arm: parse_policy(arm) for arm in DRIFT_ARMS},
    baseline="off",
    default=DriftPolicy().name,
    figures=(
        Figure("accuracy", "all five, whole video, %", "high", 100, 1),
        *(replace(f, name=f"{f.name}_end", title=f"{f.title}, end") for f in TRUTH),
        Figure("moments_end", "moments, end"),
        Figure("latent_std_end", "latent std, end"),
        Figure("found", "found, %", "", 100, 0),
    ),
    decides="accuracy",
    measure=measure_drift,
    one_by_one=True,
    pictured=("accuracy", "accuracy_end", "colour_error_end", "size_error_end", "contrast_error_end"),
    curves={
        "accuracy": "all five attributes",
        "shape": "shape",
        "colour": "colour",
        "colour_error": "colour error",
        "size_error": "size error",
        "contrast_error": "contrast error",
        "moments": "moments: distance to the first chunk's",
        "latent_std": "latent std",
    },
)
