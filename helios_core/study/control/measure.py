"""Videos under control, measured from the pixels and the latents: path, attributes, checkerboard, contrast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ... import pyramid
from ...drawn import PATHS, SIZE, Tracked, random_tracked, read_followed
from ...measure import frame_statistics
from ...training.control import encode_whole
from ...with_control import with_control
from ..paired import Figure

SEED = 97  # of the paths that adapters are measured on; trainings draw theirs otherwise
FIGURES = (
    Figure("near", "frames within 4 pixels, %", "high", 100, 1),
    Figure("error", "path error, pixels", "low", 1, 2),
    Figure("right", "all attributes right, %", "high", 100, 1),
    Figure("checker1", "checkerboard error, stage 2", "low", 1, 3),
    Figure("checker2", "checkerboard error, stage 3", "low", 1, 3),
    Figure("contrast", "contrast error", "low", 1, 3),
    Figure("loss", "training loss", "", 1, 3),
)


class DrawnVideo(NamedTuple):
    """What a video is measured against: the object, what it truly looks like, and the control's raw latents."""

    tracked: Tracked
    frames: np.ndarray
    control: np.ndarray


def drawn_videos(helios, count: int, chunks: int, seed: int = 0, what: str = "track") -> list[DrawnVideo]:
    """Objects on paths that no training has shown, of each kind of path in turn; the captions' motions are random."""
    rng, kinds = np.random.default_rng((seed, SEED)), list(PATHS)
    found = []
    for i in range(count):
        tracked = random_tracked(rng, chunks * helios.config.frames_per_chunk, kinds[i % len(kinds)], fitting=0.0)
        control = encode_whole(helios, getattr(tracked, what)()).numpy()
        found.append(DrawnVideo(tracked, tracked.frames(), control))
    return found


def controlled(helios, adapter, videos: list[DrawnVideo], **how):
    """The model under the controls of a batch of videos. how: strength and policy."""
    raw = helios.backend.array(np.stack([video.control for video in videos]))
    return with_control(helios, adapter, helios.normalise(raw), **how)


class StageLatents(NamedTuple):
    """Of one chunk: frames [b t h w 3]; the clean estimate that each stage ended with, coarsest first."""

    frames: np.ndarray
    stages: list[np.ndarray]


def render(helios, videos: list[DrawnVideo], seed: int, chunks: int) -> Iterator[StageLatents]:
    """Chunk after chunk of all videos as one batch; helios: as `controlled` makes it."""
    history = helios.history(SIZE, SIZE, batch=len(videos))
    text = helios.text([video.tracked.caption() for video in videos])
    for _ in range(chunks):
        last = {step.stage: step for step in helios.sample(history, text, seed=seed)}
        latent = last[max(last)].latent
        history = history.append(latent)
        frames = np.stack([helios.decode(z[None]) for z in latent])
        yield StageLatents(frames, [np.asarray(helios.backend.to_cpu(last[k].x0)) for k in sorted(last)])


def nyquist(x: np.ndarray) -> np.ndarray:
    """Mean power per video at the highest frequencies along height, width or both; x [b c t h w] -> [b]."""
    power = abs(np.fft.fft2(x, norm="ortho")) ** 2
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    return (power[..., h, :].sum(-1) + power[..., :, w].sum(-1) - power[..., h, w]).mean(axis=(1, 2))


class Truth(NamedTuple):
    """Of what a video was to show: per chunk the power at the highest frequencies of each stage; its contrast."""

    nyquist: np.ndarray
    contrast: float


def truth_of(helios, video: DrawnVideo) -> Truth:
    """By the model's own VAE, the stages as training makes them."""
    n, found = helios.config.frames_per_chunk, []
    stages = range(helios.config.schedule.stages)
    for start in range(0, len(video.frames), n):
        z = helios.normalise(encode_whole(helios, video.frames[start : start + n])[None])
        levels = [z if not k else pyramid.downsample(z, (2,) * k, "content") for k in reversed(stages)]
        found.append([float(nyquist(np.asarray(level))[0]) for level in levels])
    return Truth(np.array(found), contrast_of(video.frames))


def contrast_of(frames: np.ndarray) -> float:
    """Mean contrast of uint8 frames."""
    return float(frame_statistics(frames)["contrast"].mean())


def measure(helios, adapter, videos: list[tuple[DrawnVideo, Truth]], seed: int, chunks: int, **how):
    """(A row of figures per video, but for the loss; frames [v t h w 3]). how: strength and policy of the control."""
    under = controlled(helios, adapter, [video for video, _ in videos], **how)
    made = list(render(under, [video for video, _ in videos], seed, chunks))
    frames = np.concatenate([chunk.frames for chunk in made], axis=1)
    power = np.array([[nyquist(x) for x in chunk.stages] for chunk in made])  # chunk, stage, video
    rows = []
    for i, (video, truth) in enumerate(videos):
        apart = abs(np.log2(power[:, :, i] / truth.nyquist[:chunks])).mean(axis=0)
        figures = {f"checker{k}": float(value) for k, value in enumerate(apart)}
        figures |= {"contrast": abs(contrast_of(frames[i]) / truth.contrast - 1)}
        rows.append(followed(video, frames[i]) | figures)
    return rows, frames


def followed(video: DrawnVideo, frames: np.ndarray) -> dict:
    """The figures that are read from the pixels; a frame without an object counts as half a picture away."""
    found = read_followed(frames, video.tracked)
    error = np.nan_to_num(found.error, nan=SIZE / 2)
    figures = {"near": found.near, "error": float(error.mean()), "right": float(found.right)}
    return figures | {"colour": float(found.colour), "shape": float(found.shape)}
