"""Variance policies on clean latents: of drawn videos, of control videos, and where a stage of the sampler begins."""

from __future__ import annotations

import numpy as np
from einops import rearrange

from ... import pyramid, resample
from ...drawn import SIZE, draw
from ...steps import schedule
from ..experiment import PolicySizes, StudyPart, draw_scenes
from ..paired import Figure

FRAMES = 33
FADED = 0.6  # contrast of a control video
ROOT = 1e-6
FACTORS = (2, 4)


def shrink_video(frames: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [t h w 3] -> [t h/factor w/factor 3], means of whole cells."""
    small = resample.shrink(rearrange(frames.astype(np.float64), "t h w c -> 1 c t h w"), factor)
    return np.rint(rearrange(small, "1 c t h w -> t h w c")).astype(np.uint8)


def encode(helios, frames: np.ndarray):
    """uint8 [t h w 3] -> the posterior's mean, normalised, [1 c t h w]."""
    _, h, w, _ = frames.shape
    mean, _ = helios.backend.encode(helios.parts.vae, helios.backend.fit(frames, w, h))
    return helios.normalise(mean)


def fade(frames: np.ndarray) -> np.ndarray:
    """Less contrast about each frame's mean."""
    middle = frames.mean(axis=(1, 2), keepdims=True)
    return np.rint(middle + FADED * (frames - middle)).clip(0, 255).astype(np.uint8)


def against(helios, latent, small: np.ndarray, ideal: np.ndarray, suffix: str) -> dict[str, float]:
    """A shrunk latent against the ideal, the VAE's own of the shrunk video, in numbers and in decoded pictures."""
    level, shown = np.asarray(latent), helios.decode(latent)
    contrast = [v.std(axis=(1, 2)).mean() for v in (shown, small)]
    ratio = contrast[0] / max(contrast[1], ROOT)
    wrong = float(((shown.astype(np.float64) - small) ** 2).mean())
    figures = {
        "std": level.std() / ideal.std(),
        "error": float(np.sqrt(((level - ideal) ** 2).mean()) / ideal.std()),
        "contrast": float(ratio),
        "contrast_error": float(abs(ratio - 1)),
        "psnr": 10 * np.log10(255**2 / max(wrong, ROOT)),
    }
    return {f"{name}_{suffix}": value for name, value in figures.items()}


def measure_levels(helios, arms: dict, drawn, prepare) -> dict[str, list[dict]]:
    """prepare(frames): the video whose latents are shrunk. arms: (policy, kernel, whether the true latents serve as
    reference)."""
    found = {arm: [] for arm in arms}
    for scene in drawn:
        frames = draw(scene, FRAMES)
        true, given = encode(helios, frames), encode(helios, prepare(frames))
        small = {f: shrink_video(frames, f) for f in FACTORS}
        ideal = {f: np.asarray(encode(helios, small[f])) for f in FACTORS}
        for arm, (policy, kernel, referred) in arms.items():
            levels = pyramid.build(given, (2, 2), policy, kernel=kernel, reference=true if referred else None).arrays
            figures = {}
            for f, level in zip(FACTORS, levels[1:]):
                figures |= against(helios, level, small[f], ideal[f], str(f))
            found[arm].append({"figures": figures})
    return found


def measure_content(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """Latents of drawn videos; only the number of the scenes counts."""
    return measure_levels(helios, arms, draw_scenes(len(scenes), seed), lambda frames: frames)


def measure_control(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """Latents of drawn videos with less contrast; only the number of the scenes counts."""
    return measure_levels(helios, arms, draw_scenes(len(scenes), seed), fade)


LEVELS = tuple(
    Figure(f"{name}_{f}", f"{title}, /{f}", goal, 1, digits)
    for f in FACTORS
    for name, title, goal, digits in (
        ("error", "error", "low", 3),
        ("contrast_error", "contrast error", "low", 3),
        ("psnr", "PSNR", "high", 2),
        ("std", "std", "", 3),
        ("contrast", "contrast", "", 3),
    )
)
KERNELS = ("nearest", "bilinear_aligned", "bicubic", "lanczos")
POLICIES = ("content", "noise", "analytic", "match", "match_channel", "match_frame")
CONTENT = StudyPart(
    name="content",
    title="Variance of clean latents",
    text="Drawn videos are encoded, and their latents shrunk by 2 and 4. The ideal is what the VAE makes of the video "
    "shrunk by as much. `error` is the root mean square distance to that, in parts of its std; `std` and `contrast` "
    "(of the decoded pictures) are ratios to the ideal, 1 is right; PSNR is that of the decoded pictures. Doing "
    "nothing is `content` with `area`.",
    arms={f"{p}, area": (p, "area", False) for p in POLICIES}
    | {f"{p}, {k}": (p, k, False) for p in ("content", "match") for k in KERNELS},
    baseline="content, area",
    default="",
    figures=LEVELS,
    decides="error_2",
    measure=measure_content,
    pictured=("error_2", "error_4", "psnr_2", "contrast_error_2"),
)
CONTROL = StudyPart(
    name="control",
    title="Variance of control latents",
    text=f"As above, but what is encoded and shrunk is a control video of {100 * FADED:.0f} % of the contrast, and the "
    "ideal is of the video itself. With `+ reference` the spread aimed at is that of the video's own latents. Doing "
    "nothing is `content`.",
    arms={p: (p, "area", False) for p in POLICIES}
    | {f"{p} + reference": (p, "area", True) for p in ("match", "match_channel", "match_frame")},
    baseline="content",
    default="",
    figures=LEVELS,
    decides="error_2",
    measure=measure_control,
    pictured=("error_2", "error_4", "psnr_2", "contrast_error_2"),
)


def measure_stages(helios, arms: dict, scenes, seed: int, sizes: PolicySizes) -> dict[str, list[dict]]:
    """The network's first estimate of a stage's end, from start points whose coarse half each policy made."""
    clean = np.concatenate([np.asarray(encode(helios, draw(scene, FRAMES))) for scene in scenes])
    clean = helios.backend.array(clean)
    history = helios.history(SIZE, SIZE, batch=len(scenes))
    text = helios.text([scene.caption() for scene in scenes])
    predict = helios.backend.inference()(estimate)
    found = {arm: [{"figures": {}} for _ in scenes] for arm in arms}
    for stage in schedule.stages(helios.config.schedule)[1:]:
        starts, end = start_points(stage, clean, helios.noise(history, seed), helios.config.schedule.stages - 1, arms)
        power = ((np.asarray(starts[CONTENT.baseline]) - np.asarray(end)) ** 2).mean(axis=(1, 2, 3, 4))
        for arm, start in starts.items():
            wrong = (np.asarray(predict(helios, stage, start, history, text)) - np.asarray(end)) ** 2
            for row, value in zip(found[arm], np.sqrt(wrong.mean(axis=(1, 2, 3, 4)) / power)):
                row["figures"][f"stage_{stage.index + 1}"] = value
    return found


def start_points(stage: schedule.Stage, clean, noise, last: int, arms: dict) -> tuple[dict, object]:
    """Per arm the training's start point of a stage, and its end point; the coarse clean latents by the arm's policy.

    clean, noise: [b c t h w] at full size; last: the last stage's index.
    """
    from ...training.objective import flow_pair

    start, end = flow_pair(stage, clean, noise, last)
    factors = (2,) * (last - stage.index + 1)
    coarse = {
        arm: pyramid.upsample(pyramid.downsample(clean, factors, policy, kernel=kernel))
        for arm, (policy, kernel, _) in arms.items()
    }
    return {arm: start + (1 - stage.start) * (x - coarse[CONTENT.baseline]) for arm, x in coarse.items()}, end


def estimate(helios, stage: schedule.Stage, start, history, text):
    """The end point of a stage that the network reads from its start, in one step and without guidance."""
    model = helios.parts.transformer
    step = helios.plan(history).stage_steps(stage.index, start.shape)[0]
    context = model.history_context(history.parts(start.shape[2]))
    velocity = model.velocity(model.array(start), float(int(step.t)), model.text_context(text), context)
    return helios.backend.to_cpu(model.array(start) - step.sigma * velocity)


STAGES = StudyPart(
    name="stages",
    title="Variance at the stages of the sampler",
    text="A stage begins from the coarser stage's clean latents, enlarged and blended with noise. Here those clean "
    "latents are drawn videos', shrunk by each policy, and the network says in one step where the stage should end. "
    "Error is the root mean square distance to where it does end, in parts of the way from start to end. Doing "
    "nothing is `content` with `area`, as in training.",
    arms=CONTENT.arms,
    baseline="content, area",
    default="",
    figures=(Figure("stage_2", "error, stage 2", "low"), Figure("stage_3", "error, stage 3", "low")),
    decides="stage_3",
    measure=measure_stages,
    pictured=("stage_2", "stage_3"),
)
