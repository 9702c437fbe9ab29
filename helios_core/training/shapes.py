"""Procedurally drawn videos with captions: one coloured shape that moves across a plain or striped background.

A scene begins with its shape on the side it comes from, so that the first chunk crosses the middle. What leaves the
picture on one side enters on the other, so a direction stays true for any length of video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 64  # pixels, square
SPEED = 1.0  # pixels per frame
RADIUS = (9.0, 12.0)  # pixels

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.65, 0.15, 0.80),
    "white": (0.97, 0.97, 0.97),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y), y grows downwards
BACKGROUNDS = ("plain", "striped")


@dataclass(frozen=True)
class Scene:
    """What one video shows. start: (x, y) of the centre in frame 0, pixels."""

    colour: str
    shape: str
    direction: str
    background: str
    start: tuple[float, float] = (SIZE / 2, SIZE / 2)
    radius: float = 10.5

    def caption(self, variant: int = 0) -> str:
        """One of three ways to say it; a plain background may go unsaid."""
        text = f"a {self.colour} {self.shape} moving "
        text += f"to the {self.direction}" if variant == 1 and self.direction in ("left", "right") else self.direction
        if self.background == "plain" and variant == 2:
            return text
        return f"{text} on a {self.background} background"


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn evenly from the vocabulary."""
    direction = str(rng.choice(list(DIRECTIONS)))
    along = SIZE / 2 - 16 * sum(DIRECTIONS[direction]) + rng.uniform(-5, 5)
    across = rng.uniform(SIZE * 0.25, SIZE * 0.75)
    return Scene(
        colour=str(rng.choice(list(COLOURS))),
        shape=str(rng.choice(SHAPES)),
        direction=direction,
        background=str(rng.choice(BACKGROUNDS)),
        start=(float(along), float(across)) if DIRECTIONS[direction][0] else (float(across), float(along)),
        radius=float(rng.uniform(*RADIUS)),
    )


def backdrop(name: str) -> np.ndarray:
    """[h, w, 3] in 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE]
    if name == "plain":
        grey = np.full((SIZE, SIZE), 0.28)
    else:
        grey = np.where((x + y) % 16 < 8, 0.18, 0.42)
    return np.repeat(grey[..., None], 3, axis=-1)


def coverage(shape: str, centres: np.ndarray, radius: float) -> np.ndarray:
    """How much of each pixel the shape covers, on a torus. centres [t, 2] in pixels -> [t, h, w] in 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    dx = (x - centres[:, 0, None, None] + SIZE / 2) % SIZE - SIZE / 2
    dy = (y - centres[:, 1, None, None] + SIZE / 2) % SIZE - SIZE / 2
    if shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif shape == "square":
        distance = np.maximum(abs(dx), abs(dy)) - 0.88 * radius
    else:  # equilateral, pointing up
        distance = np.maximum(dy, 0.866 * abs(dx) - 0.5 * dy) - 0.62 * radius
    return np.clip(0.5 - distance, 0, 1)


def draw(scene: Scene, frames: int, *, first: int = 0) -> np.ndarray:
    """The scene's frames first .. first + frames - 1 as uint8 [t, h, w, 3]."""
    time = np.arange(first, first + frames)[:, None]
    centres = np.array(scene.start) + SPEED * time * np.array(DIRECTIONS[scene.direction])
    alpha = coverage(scene.shape, centres, scene.radius)[..., None]
    picture = (1 - alpha) * backdrop(scene.background) + alpha * np.array(COLOURS[scene.colour])
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
