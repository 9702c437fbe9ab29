"""Reads colour, shape, direction and background of helios-tiny's videos from the pixels alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..training import shapes

THRESHOLD = 0.22  # largest channel difference from the backdrop that still counts as backdrop, 0..1
RADII = np.arange(8.0, 13.1, 1.0)


@dataclass(frozen=True)
class Reading:
    """What a video shows. A direction is None when nothing moves; colour and shape are None when nothing is there."""

    colour: str | None
    shape: str | None
    direction: str | None
    background: str
    travel: tuple[float, float]
    overlap: float

    def matches(self, scene: shapes.Scene) -> dict[str, bool]:
        return {k: getattr(self, k) == getattr(scene, k) for k in ("colour", "shape", "direction", "background")}


def read_video(frames: np.ndarray) -> Reading:
    """Reads uint8 frames [t h w 3] of helios-tiny's size. travel: (x, y) pixels over the video; overlap: IoU 0..1."""
    video = frames.astype(np.float64) / 255
    errors = {name: np.median(abs(video - shapes.backdrop(name)), axis=(0, 3)).mean() for name in shapes.BACKGROUNDS}
    background = min(errors, key=errors.get)
    masks = abs(video - shapes.backdrop(background)).max(-1) > THRESHOLD
    if masks.sum(axis=(1, 2)).mean() < 20:
        return Reading(None, None, None, background, (0.0, 0.0), 0.0)
    path = np.stack([centre(mask) for mask in masks])
    travel = np.nansum((np.diff(path, axis=0) + shapes.SIZE / 2) % shapes.SIZE - shapes.SIZE / 2, axis=0)
    shape, overlap = find_shape(masks, path)
    return Reading(find_colour(video, masks), shape, find_direction(travel), background, tuple(travel), overlap)


def centre(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the mask's centre on a torus, by circular means; NaN if it is empty."""
    if not mask.any():
        return np.array([np.nan, np.nan])
    turns = 2 * np.pi * (np.arange(shapes.SIZE) + 0.5) / shapes.SIZE
    weights = (mask.sum(0), mask.sum(1))
    angles = [np.angle((w * np.exp(1j * turns)).sum()) % (2 * np.pi) for w in weights]
    return np.array(angles) * shapes.SIZE / (2 * np.pi)


def find_colour(video: np.ndarray, masks: np.ndarray) -> str:
    """The vocabulary's colour nearest to the median object pixel."""
    colour = np.median(video[masks], axis=0)
    return min(shapes.COLOURS, key=lambda name: np.linalg.norm(colour - np.array(shapes.COLOURS[name])))


def find_direction(travel: np.ndarray, least: float = 6.0) -> str | None:
    """The vocabulary's direction nearest to the travel; None below `least` pixels."""
    if np.linalg.norm(travel) < least:
        return None
    return max(shapes.DIRECTIONS, key=lambda name: float(np.dot(travel, shapes.DIRECTIONS[name])))


def find_shape(masks: np.ndarray, path: np.ndarray) -> tuple[str, float]:
    """The shape whose outline overlaps the masks best (mean IoU over every fourth frame), with its IoU."""
    picks = [i for i in range(0, len(masks), 4) if not np.isnan(path[i]).any()]
    scores = {}
    for name in shapes.SHAPES:
        for radius in RADII:
            # the centre of mass of a triangle drawn here lies above the centre it is drawn at
            outline = shapes.coverage(name, path[picks] - offset(name, radius), radius) > 0.5
            both, either = (masks[picks] & outline).sum((1, 2)), (masks[picks] | outline).sum((1, 2))
            scores[name, radius] = float((both / np.maximum(either, 1)).mean())
    best = max(scores, key=scores.get)
    return best[0], scores[best]


@lru_cache
def offset(shape: str, radius: float) -> np.ndarray:
    """(x, y) from where a shape is drawn to its centre of mass."""
    middle = np.full((1, 2), shapes.SIZE / 2)
    return centre(shapes.coverage(shape, middle, radius)[0] > 0.5) - middle[0]
