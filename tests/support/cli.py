"""A pipeline that draws instead of thinking, for tests of the command line."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    chunk: int
    stage: int
    index: int
    total: int


class Chunk(NamedTuple):
    index: int
    total: int
    frames: Iterator[np.ndarray]
    made_of: tuple


class Fake:
    """Two steps and 33 frames per chunk; `fails` is raised in place of chunk 2."""

    config = SimpleNamespace(
        frames_per_chunk=33,
        spatial_multiple=32,
        defaults=SimpleNamespace(width=64, height=64, steps=(2, 2, 2), solver="dmd"),
    )

    def __init__(self, fails=None):
        self.fails, self.asked, self.parts, self.controls = fails, None, self, ()
        self.identity = self.vae_identity = ("fake",)

    def load(self, path, **options):
        self.path, self.options = path, options
        return self

    def needs(self, width, height):
        return [f"needed for {width}x{height}"]

    def encode_ahead(self, *_, **__):
        pass

    def generate(self, prompt, store=None, **settings):
        self.asked = {"prompt": prompt, **settings}
        total = settings["chunks"]
        for k in range(total):
            for i in range(2):
                yield Step(k, 0, i, 2)
            if k == 2 and self.fails:
                raise self.fails
            shade = np.arange(33, dtype=np.uint8)[:, None, None, None] + 40 * k
            frames = np.broadcast_to(shade, (33, settings["height"], settings["width"], 3))
            yield Chunk(k, total, iter([frames]), ("fake", prompt, k))
