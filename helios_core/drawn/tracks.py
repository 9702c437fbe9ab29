"""Objects on free paths, the tracks that show where they are, and how well a video keeps to one: what control is
trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import scenes
from .reading import centre, object_mask, offset, read_video
from .scenes import SIZE, Thing

MARGIN = 14.0  # pixels between a path and the picture's edge
SPEED = 2.2  # pixels per frame, at most
TRACK = 0.55  # a track's radius in parts of the object's
NEAR = 4.0  # pixels within which a centre is where it should be


@dataclass(frozen=True)
class Tracked:
    """An object on a path. centres [t 2]: (x, y) of every frame, pixels; motion: the word that its caption has."""

    thing: Thing
    background: str
    centres: np.ndarray
    radius: float
    motion: str

    def caption(self, variant: int = 0) -> str:
        """One of three ways to say it, as scenes have them."""
        return scenes.Scene((self.thing,), self.motion, self.background).caption(variant)

    def frames(self) -> np.ndarray:
        """uint8 [t h w 3]."""
        alpha = scenes.coverage(self.thing.shape, self.centres, self.radius)[..., None]
        picture = (1 - alpha) * scenes.backdrop(self.background)[None] + alpha * np.array(
            scenes.COLOURS[self.thing.colour]
        )
        return np.round(picture * 255).astype(np.uint8)

    def track(self) -> np.ndarray:
        """uint8 [t h w 3]: a white disc where the object is, as large as it is in parts, on black."""
        return draw_track(self.centres, self.radius)

    def mask(self) -> np.ndarray:
        """uint8 [t h w 3]: the object in white on black."""
        alpha = scenes.coverage(self.thing.shape, self.centres, self.radius)[..., None]
        return np.round(alpha * 255).astype(np.uint8).repeat(3, axis=-1)


def draw_track(centres: np.ndarray, radius: float = 11.5) -> np.ndarray:
    """The track of an object of that radius along centres [t 2]: uint8 [t h w 3]."""
    alpha = scenes.coverage("circle", np.asarray(centres, float), TRACK * radius)[..., None]
    return np.round(alpha * 255).astype(np.uint8).repeat(3, axis=-1)


def random_path(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A smooth path [t 2] within the picture: a few waves per axis, of periods from one chunk to several."""
    time = np.arange(frames)
    while True:
        axes = []
        for _ in range(2):
            periods, sizes = rng.uniform(25, 180, 3), rng.uniform(0.2, 1, 3)
            waves = sizes[:, None] * np.sin(2 * np.pi * (time / periods[:, None] + rng.uniform(size=(3, 1))))
            wave = waves.sum(0) / sizes.sum()
            half = (SIZE / 2 - MARGIN) * rng.uniform(0.4, 1)
            free = SIZE / 2 - MARGIN - half
            axes.append(SIZE / 2 + rng.uniform(-free, free) + half * wave / abs(wave).max())
        path = np.stack(axes, axis=-1)
        if np.linalg.norm(np.diff(path, axis=0), axis=1).max() <= SPEED:
            return path


def corner_path(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Straight lines between corners [t 2], at one speed: of a kind that no training shows."""
    speed = rng.uniform(0.7, 1.6)
    corners = [rng.uniform(MARGIN, SIZE - MARGIN, 2)]
    path = [corners[0]]
    while len(path) < frames:
        corners.append(rng.uniform(MARGIN, SIZE - MARGIN, 2))
        way = corners[-1] - path[-1]
        steps = int(np.linalg.norm(way) / speed)
        path += [path[-1] + way * (k + 1) / steps for k in range(steps)] if steps else []
    return np.stack(path[:frames])


def eight_path(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A figure of eight [t 2], turned and sized at random: of a kind that no training shows."""
    turn = 2 * np.pi * (np.arange(frames) / rng.uniform(70, 130) + rng.uniform())
    line = np.stack([np.sin(turn), np.sin(2 * turn) / 2], axis=-1) * rng.uniform(10, SIZE / 2 - MARGIN)
    angle = rng.uniform(0, 2 * np.pi)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return SIZE / 2 + line @ spin.T


PATHS = {"waves": random_path, "corners": corner_path, "eight": eight_path}


def random_tracked(rng: np.random.Generator, frames: int, kind: str = "waves", fitting: float = 0.25) -> Tracked:
    """An object of the vocabulary on a path. fitting: the share that moves as its caption says, by the vocabulary; of
    the others the caption has any motion's word."""
    found = scenes.arrange(rng, 1, str(rng.choice(list(scenes.MOTIONS))))
    if rng.random() < fitting:
        while found.motion == "growing":
            found = scenes.arrange(rng, 1, str(rng.choice(list(scenes.MOTIONS))))
        shift, _ = scenes.path(found, np.arange(frames))
        centres = np.array(found.starts[0]) + shift
    else:
        centres = PATHS[kind](rng, frames)
    return Tracked(found.things[0], found.background, centres, found.radius, found.motion)


@dataclass(frozen=True)
class Followed:
    """How a video keeps to a path. error [t]: pixels from it in every frame, NaN where there is no object; near: the
    share of frames within NEAR. The attributes are whether each came true, over the whole video."""

    error: np.ndarray
    near: float
    colour: bool
    shape: bool
    background: bool
    count: bool

    @property
    def right(self) -> bool:
        """Whether colour, shape, background and number are as asked."""
        return self.colour and self.shape and self.background and self.count


def read_followed(frames: np.ndarray, tracked: Tracked) -> Followed:
    """uint8 frames [t h w 3] against the path that they were to follow, read from the pixels alone."""
    found = read_video(frames)
    masks = object_mask(frames.astype(np.float64) / 255, tracked.background)
    seen = np.stack([centre(mask) for mask in masks]) - offset(tracked.thing.shape, round(tracked.radius))
    apart = (seen - tracked.centres[: len(frames)] + SIZE / 2) % SIZE - SIZE / 2
    error = np.linalg.norm(apart, axis=1)
    things = {one.colour: one.shape for one in found.objects}
    return Followed(
        error,
        float((error <= NEAR).mean()),
        colour=tracked.thing.colour in things,
        shape=things.get(tracked.thing.colour) == tracked.thing.shape,
        background=found.background == tracked.background,
        count=len(found.objects) == 1,
    )
