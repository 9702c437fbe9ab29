"""How a video of a drawn scene wanders from what it should show: attributes, colour, size and latents per chunk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..measure import frame_statistics
from . import scenes
from .reading import object_mask, read_video


@dataclass(frozen=True)
class ChunkReading:
    """One chunk against its scene. colour_error: distance in RGB, 0..1; size: object area over the scene's, 1 is right.

    contrast, sharpness: means over the frames. The attributes are whether each came true.
    """

    chunk: int
    colour: bool
    shape: bool
    motion: bool
    background: bool
    count: bool
    colour_error: float
    size: float
    contrast: float
    sharpness: float
    latent_mean: tuple[float, ...] = ()
    latent_std: tuple[float, ...] = ()


def read_chunk(frames: np.ndarray, scene: scenes.Scene, chunk: int, latent=None) -> ChunkReading:
    """uint8 frames [t h w 3] of chunk number `chunk` of the scene's video; latent [c t h w], to note its moments."""
    statistics = frame_statistics(frames)
    latent = None if latent is None else np.asarray(latent, dtype=np.float32)
    return ChunkReading(
        chunk=chunk,
        **read_video(frames).matches(scene),
        colour_error=colour_error(frames, scene),
        size=object_area(frames, scene.background) / expected_area(scene, len(frames), chunk * len(frames)),
        contrast=float(statistics["contrast"].mean()),
        sharpness=float(statistics["sharpness"].mean()),
        latent_mean=() if latent is None else tuple(latent.mean(axis=(1, 2, 3)).tolist()),
        latent_std=() if latent is None else tuple(latent.std(axis=(1, 2, 3)).tolist()),
    )


def colour_error(frames: np.ndarray, scene: scenes.Scene) -> float:
    """Mean over the scene's objects of how far the nearest object pixels' median colour is from theirs; 1 if none."""
    video = frames.astype(np.float64) / 255
    pixels = video[object_mask(video, scene.background)]
    if not len(pixels):
        return 1.0
    wanted = np.array([scenes.COLOURS[t.colour] for t in scene.things])
    nearest = np.linalg.norm(pixels[:, None] - wanted, axis=-1).argmin(1)
    errors = [
        np.linalg.norm(np.median(pixels[nearest == i], axis=0) - rgb) if (nearest == i).any() else 1.0
        for i, rgb in enumerate(wanted)
    ]
    return float(np.mean(errors))


def object_area(frames: np.ndarray, background: str) -> float:
    """Pixels of objects per frame."""
    return float(object_mask(frames / 255, background).sum(axis=(1, 2)).mean())


def expected_area(scene: scenes.Scene, frames: int, first: int) -> float:
    """Of the scene as it is drawn."""
    return object_area(draw_middle(scene, frames, first), scene.background)


def expected_contrast(scene: scenes.Scene, frames: int, first: int) -> float:
    """Of the scene as it is drawn: the mean of its frames' standard deviations of luma."""
    return float(frame_statistics(draw_middle(scene, frames, first))["contrast"].mean())


def draw_middle(scene: scenes.Scene, frames: int, first: int) -> np.ndarray:
    """The scene with the vocabulary's middle radius, for a prompt says nothing of size."""
    low, high = scenes.RADIUS if len(scene.things) == 1 else scenes.RADIUS_OF_TWO
    return scenes.draw(replace(scene, radius=(low + high) / 2), frames, first=first)
