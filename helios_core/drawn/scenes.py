"""Procedurally drawn videos with captions: one or two coloured shapes in motion before a background.

Every motion goes on for any length of video. What leaves the picture on one side enters on the other, so a direction
stays true; what bounces, circles or grows repeats once per chunk. A straight path begins on the side it comes from, so
that the first chunk crosses the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

SIZE = 64  # pixels, square
SPEED = 1.0  # pixels per frame on a straight line
PERIOD = 33  # frames of what repeats
BOUNCE, ORBIT, GROWTH = 10.0, 8.0, 0.3  # pixels up and down, pixels of the circle's radius, share of the radius
RADIUS, RADIUS_OF_TWO = (10.0, 13.0), (9.0, 11.0)  # pixels
TWO = 0.25  # share of scenes with two objects
HELD_OUT = 10  # one in so many combinations is never trained on

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.15, 0.20, 0.95),
    "yellow": (0.95, 0.90, 0.10),
    "purple": (0.60, 0.10, 0.75),
    "white": (0.97, 0.97, 0.97),
    "orange": (0.98, 0.50, 0.05),
    "cyan": (0.10, 0.85, 0.95),
}
SHAPES = ("circle", "square", "triangle", "ring")
# Drawn and read on request: no vocabulary, draw or hash of helios-tiny has them.
NEW_COLOURS = {"pink": (0.98, 0.45, 0.72)}
NEW_SHAPES = ("star", "heart")
ALL_COLOURS = COLOURS | NEW_COLOURS
ALL_SHAPES = SHAPES + NEW_SHAPES
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y), y grows downwards
MOTIONS = {  # motion -> two ways to say it
    "left": ("moving left", "moving to the left"),
    "right": ("moving right", "moving to the right"),
    "up": ("moving up", "rising"),
    "down": ("moving down", "falling"),
    "still": ("standing still", "not moving"),
    "bouncing": ("bouncing up and down", "bouncing"),
    "circling": ("moving in a circle", "circling"),
    "growing": ("growing and shrinking", "pulsing"),
}
BACKGROUNDS = ("plain", "striped", "checkered")


@dataclass(frozen=True)
class Thing:
    """One object, in the words of ALL_COLOURS and ALL_SHAPES."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """What one video shows.

    starts: (x, y) of each object's centre in frame 0, before what repeats, pixels. phase: of what repeats, in turns.
    """

    things: tuple[Thing, ...]
    motion: str
    background: str
    starts: tuple[tuple[float, float], ...] = ((SIZE / 2, SIZE / 2),)
    radius: float = 11.5
    phase: float = 0.0

    def caption(self, variant: int = 0) -> str:
        """One of three ways to say it; a plain background may go unsaid."""
        text = " and ".join(f"a{'n' if t.colour == 'orange' else ''} {t.colour} {t.shape}" for t in self.things)
        text += " " + MOTIONS[self.motion][variant == 1]
        if self.background == "plain" and variant == 2:
            return text
        return f"{text} on a {self.background} background"

    def held_out(self) -> bool:
        """Whether this combination is kept from training, to test on: by a hash of what it shows."""
        return crc32(self.caption().encode()) % HELD_OUT == 0


def scene(colour: str, shape: str, motion: str, background: str, **geometry) -> Scene:
    """A scene of one object."""
    return Scene((Thing(colour, shape),), motion, background, **geometry)


def random_scene(rng: np.random.Generator, held_out: bool | None = None) -> Scene:
    """A scene drawn evenly. held_out: only from what training never shows, or only from the rest; None: from all."""
    while True:
        found = arrange(rng, 2 if rng.random() < TWO else 1, str(rng.choice(list(MOTIONS))))
        if held_out is None or found.held_out() == held_out:
            return found


def arrange(rng: np.random.Generator, count: int, motion: str) -> Scene:
    """Objects of different colours, side by side across their direction, drawn at random."""
    colours = rng.choice(list(COLOURS), count, replace=False)
    way = DIRECTIONS.get(motion, (0, 0))
    along = SIZE / 2 - 16 * sum(way) + rng.uniform(-5, 5)
    reach = SIZE * 0.25 if any(way) else SIZE * 0.15
    across = rng.uniform(-reach, reach) + SIZE / 2
    if count == 2:
        gap = rng.uniform(15, 17)
        across = rng.uniform(-3, 3) + SIZE / 2 + np.array([-gap, gap])
    starts = [(along, a) if way[0] else (a, along) for a in np.atleast_1d(across)]
    return Scene(
        things=tuple(Thing(str(c), str(rng.choice(SHAPES))) for c in colours),
        motion=motion,
        background=str(rng.choice(BACKGROUNDS)),
        starts=tuple((float(x), float(y)) for x, y in starts),
        radius=float(rng.uniform(*(RADIUS if count == 1 else RADIUS_OF_TWO))),
        phase=float(rng.uniform()),
    )


def backdrop(name: str) -> np.ndarray:
    """[h, w, 3] in 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE]
    if name == "plain":
        grey = np.full((SIZE, SIZE), 0.28)
    elif name == "striped":
        grey = np.where((x + y) % 16 < 8, 0.18, 0.42)
    else:
        grey = np.where((x // 8 + y // 8) % 2, 0.18, 0.42)
    return np.repeat(grey[..., None], 3, axis=-1)


def coverage(shape: str, centres: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, on a torus. centres [t, 2], radius or [t]: pixels -> [t, h, w], 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    dx = (x - centres[:, 0, None, None] + SIZE / 2) % SIZE - SIZE / 2
    dy = (y - centres[:, 1, None, None] + SIZE / 2) % SIZE - SIZE / 2
    radius = np.broadcast_to(radius, len(centres))[:, None, None]
    if shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif shape == "square":
        distance = np.maximum(abs(dx), abs(dy)) - 0.88 * radius
    elif shape == "ring":
        distance = abs(np.hypot(dx, dy) - 0.76 * radius) - 0.24 * radius
    elif shape == "star":
        distance = star(dx, dy, radius)
    elif shape == "heart":
        distance = heart(dx, dy, radius)
    else:  # equilateral, pointing up
        distance = np.maximum(dy, 0.866 * abs(dx) - 0.5 * dy) - 0.62 * radius
    return np.clip(0.5 - distance, 0, 1)


def star(dx: np.ndarray, dy: np.ndarray, radius) -> np.ndarray:
    """Signed distance, pixels, to a star of five points, one of them up."""
    turn = 2 * np.pi / 5
    angle = abs((np.arctan2(dx, -dy) + turn / 2) % turn - turn / 2)  # from the nearest point's axis
    x, y = np.hypot(dx, dy) * np.cos(angle), np.hypot(dx, dy) * np.sin(angle)
    tip, notch = 1.35, 0.6  # of the radius
    side = np.array([tip - notch * np.cos(turn / 2), notch * np.sin(turn / 2)])
    return ((x - tip * radius) * side[1] + y * side[0]) / np.hypot(*side)


def heart(dx: np.ndarray, dy: np.ndarray, radius) -> np.ndarray:
    """Signed distance, pixels, to a square on its corner with a disc on each upper side."""
    half = 0.9 * radius
    square = (abs(dx) + abs(dy) - half) / np.sqrt(2)
    return np.minimum(square, np.hypot(abs(dx) - half / 2, dy + half / 2) - half / np.sqrt(2))


def path(scene: Scene, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shift [t, 2] from the start, radius [t]) at frames `time` [t], pixels."""
    turn = 2 * np.pi * (time / PERIOD + scene.phase)
    radius = np.full(len(time), scene.radius)
    shift = np.zeros((len(time), 2))
    if scene.motion in DIRECTIONS:
        shift = SPEED * time[:, None] * np.array(DIRECTIONS[scene.motion], float)
    elif scene.motion == "bouncing":
        shift[:, 1] = BOUNCE * (1 - 2 * abs(np.sin(turn / 2)))  # a ball's: fast at the ground, slow at the top
    elif scene.motion == "circling":
        shift = ORBIT * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    elif scene.motion == "growing":
        radius = scene.radius * (1 + GROWTH * np.sin(turn))
    return shift, radius


def draw(scene: Scene, frames: int, *, first: int = 0) -> np.ndarray:
    """The scene's frames first .. first + frames - 1 as uint8 [t, h, w, 3]."""
    shift, radius = path(scene, np.arange(first, first + frames))
    picture = backdrop(scene.background)[None]
    for thing, start in zip(scene.things, scene.starts, strict=True):
        alpha = coverage(thing.shape, np.array(start) + shift, radius)[..., None]
        picture = (1 - alpha) * picture + alpha * np.array(ALL_COLOURS[thing.colour])
    return np.round(picture * 255).astype(np.uint8)


def draw_varied(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Like `draw`, but with free colours, sizes, speeds, greys and up to three shapes: what a VAE is trained on."""
    low, high = np.sort(rng.uniform(0, 1, (2, 3)), axis=0)
    y, x = np.mgrid[:SIZE, :SIZE]
    stripes = ((x * rng.integers(-1, 2) + y * rng.integers(-1, 2)) % int(rng.integers(8, 32)) < 8)[..., None]
    picture = np.where(stripes, low, high)[None].repeat(frames, axis=0)
    for _ in range(int(rng.integers(1, 4))):
        velocity = rng.uniform(-2, 2, 2)
        centres = rng.uniform(0, SIZE, 2) + np.arange(frames)[:, None] * velocity
        alpha = coverage(str(rng.choice(SHAPES)), centres, float(rng.uniform(6, 16)))[..., None]
        picture = (1 - alpha) * picture + alpha * rng.uniform(0, 1, 3)
    return np.round(picture * 255).astype(np.uint8)
