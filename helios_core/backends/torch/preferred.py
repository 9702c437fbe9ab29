"""Several ways to compute one thing, of which the best that works is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

LOG = logging.getLogger(__name__)


class Preferred:
    """Ways with their names, the best first. One that fails is given up for good, and that is said. Memory that runs
    out is no failure of a way, nor is the last one's. A compiler is given the first."""

    def __init__(self, what: str, ways: list[tuple[str, Callable]]):
        self.what, self.ways = what, ways

    def __call__(self, *args):
        """As each of them."""
        while len(self.ways) > 1 and not torch.compiler.is_compiling():
            name, way = self.ways[0]
            try:
                return way(*args)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                LOG.warning("%s: %s fails here (%s); %s from now on", self.what, name, error, self.ways[1][0])
                self.ways = self.ways[1:]
        return self.ways[0][1](*args)
