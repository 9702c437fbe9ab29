"""Reads objects, colours, shapes, motion and background of helios-tiny's videos from the pixels alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import scenes

THRESHOLD = 0.22  # largest channel difference from the backdrop that still counts as backdrop, 0..1
LEAST_SHARE = 0.15  # of the pixels that are not backdrop: fewer of a colour are edges, not an object
LEAST_PIXELS = 20  # per frame
RADII = np.arange(6.0, 16.1, 1.0)
TRAVEL, SWING, GROWTH = (
    12.0,
    3.0,
    1.5,
)  # pixels over the video, pixels of standard deviation, largest over smallest area


@dataclass(frozen=True)
class Found:
    """One object. travel: (x, y) pixels over the video; motion is None if its path fits none; overlap: IoU 0..1."""

    colour: str
    shape: str
    motion: str | None
    travel: tuple[float, float]
    overlap: float


@dataclass(frozen=True)
class Reading:
    """What a video shows, from the largest object to the smallest."""

    objects: tuple[Found, ...]
    background: str

    def matches(self, scene: scenes.Scene) -> dict[str, bool]:
        """Per attribute, whether it is what the scene asked for. An object too many spoils only the count."""
        found = {o.colour: o.shape for o in self.objects}
        wanted = {t.colour: t.shape for t in scene.things}
        colour = set(found) >= set(wanted)
        shape = found | wanted == found if colour else sorted(found.values()) == sorted(wanted.values())
        return {
            "colour": colour,
            "shape": shape,
            "motion": {o.motion for o in self.objects} == {scene.motion},
            "background": self.background == scene.background,
            "count": len(self.objects) == len(scene.things),
        }


def read_video(frames: np.ndarray, colours=scenes.COLOURS, shapes=scenes.SHAPES) -> Reading:
    """Reads uint8 frames [t h w 3] of helios-tiny's size, one chunk or more. colours, shapes: that may be seen."""
    video = frames.astype(np.float64) / 255
    errors = {name: np.median(abs(video - scenes.backdrop(name)), axis=(0, 3)).mean() for name in scenes.BACKGROUNDS}
    background = min(errors, key=errors.get)
    anything = object_mask(video, background)
    if anything.sum() < LEAST_PIXELS * len(frames):
        return Reading((), background)
    nearest = np.full(anything.shape, -1)
    distances = [np.linalg.norm(video[anything] - np.array(rgb), axis=-1) for rgb in colours.values()]
    nearest[anything] = np.argmin(distances, axis=0)
    sizes = np.bincount(nearest[anything], minlength=len(colours))
    kept = [i for i in np.argsort(-sizes) if sizes[i] >= max(LEAST_SHARE * sizes.sum(), LEAST_PIXELS * len(frames))]
    near = nearest_of(distances, kept, anything)
    return Reading(tuple(read_object(near == i, list(colours)[i], shapes) for i in kept), background)


def object_mask(video: np.ndarray, background: str) -> np.ndarray:
    """Pixels that are not backdrop, [t h w]. video [t h w 3] in 0..1."""
    return abs(video - scenes.backdrop(background)).max(-1) > THRESHOLD


def nearest_of(distances: list[np.ndarray], kept: list[int], anything: np.ndarray) -> np.ndarray:
    """Every pixel that is not backdrop, given to the nearest of the colours that are objects; elsewhere -1."""
    out = np.full(anything.shape, -1)
    if kept:
        out[anything] = np.array(kept)[np.argmin([distances[i] for i in kept], axis=0)]
    return out


def read_object(masks: np.ndarray, colour: str, shapes=scenes.SHAPES) -> Found:
    """masks [t h w]: where the object is."""
    path = np.stack([centre(mask) for mask in masks])
    seen = ~np.isnan(path).any(1)
    steps = (np.diff(path[seen], axis=0) + scenes.SIZE / 2) % scenes.SIZE - scenes.SIZE / 2
    line = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    shape, overlap = find_shape(masks, path, shapes)
    motion = find_motion(line, masks[seen].sum(axis=(1, 2)))
    return Found(colour, shape, motion, tuple(float(v) for v in line[-1]), overlap)


def centre(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the mask's centre on a torus, by circular means; NaN if it is empty."""
    if not mask.any():
        return np.array([np.nan, np.nan])
    turns = 2 * np.pi * (np.arange(scenes.SIZE) + 0.5) / scenes.SIZE
    weights = (mask.sum(0), mask.sum(1))
    angles = [np.angle((w * np.exp(1j * turns)).sum()) % (2 * np.pi) for w in weights]
    return np.array(angles) * scenes.SIZE / (2 * np.pi)


def find_motion(line: np.ndarray, areas: np.ndarray) -> str | None:
    """The vocabulary's motion of a path [t 2] without jumps and the areas [t] along it."""
    swing = line.std(0)
    if np.linalg.norm(line[-1]) >= TRAVEL and np.linalg.norm(line[-1]) > 2 * swing.max():
        return max(scenes.DIRECTIONS, key=lambda name: float(np.dot(line[-1], scenes.DIRECTIONS[name])))
    if swing.min() >= SWING:
        return "circling"
    if swing.max() >= SWING:
        return "bouncing" if swing[1] > swing[0] else None
    low, high = np.percentile(areas, (10, 90))
    return "growing" if high > GROWTH * low else "still"


def find_shape(masks: np.ndarray, path: np.ndarray, shapes=scenes.SHAPES) -> tuple[str, float]:
    """The shape whose outline overlaps the masks best (mean over every fourth frame of the best IoU), with its IoU."""
    picks = [i for i in range(0, len(masks), 4) if not np.isnan(path[i]).any()]
    scores = {}
    for name in shapes:
        rows = []
        for radius in RADII:
            # the centre of mass of a triangle drawn here lies above the centre it is drawn at
            outline = scenes.coverage(name, path[picks] - offset(name, radius), radius) > 0.5
            both, either = (masks[picks] & outline).sum((1, 2)), (masks[picks] | outline).sum((1, 2))
            rows.append(both / np.maximum(either, 1))
        scores[name] = float(np.max(rows, axis=0).mean())
    best = max(scores, key=scores.get)
    return best, scores[best]


@lru_cache
def offset(shape: str, radius: float) -> np.ndarray:
    """(x, y) from where a shape is drawn to its centre of mass."""
    middle = np.full((1, 2), scenes.SIZE / 2)
    return centre(scenes.coverage(shape, middle, radius)[0] > 0.5) - middle[0]
