"""`helios bench tiny --ray`: its batches of videos, each made and measured by one of the cluster's actors."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from .. import load
from ..pipeline import Helios
from . import Terminal, actors, set_threads
from .events import Failed
from .failures import caught


class BenchBatch(NamedTuple):
    """A batch of a setting. options: of `Helios.sample`."""

    batch: object
    chunks: int
    drift: object
    options: dict


class Measured(NamedTuple):
    """What another chunk of a batch brought: so many frames, and at its end all its videos."""

    frames: int
    videos: list


class Bencher:
    """What an actor does. args: those of the command. folder: where it was begun."""

    def __init__(self, args: argparse.Namespace, folder: str):
        self.args, self.folder, self.model = args, folder, None

    def ready(self) -> None:
        """Answers once there is room for this actor."""

    def work(self, unit: BenchBatch, _=None) -> Iterator:
        """The batch, chunk by chunk."""
        with caught("bench") as failed:
            self._open()
        if failed:
            yield actors.Unfit(failed[0].text)
            return
        with caught("bench") as failed:
            yield from self._grow(unit)
        if failed:
            yield Failed(failed[0].text)

    def _open(self) -> None:
        if self.model is None:
            with suppress(OSError):
                os.chdir(self.folder)
            set_threads(self.args.threads)
            self.model = load(self.args.model, host=Terminal())

    def _grow(self, unit: BenchBatch) -> Iterator[Measured]:
        from ..drawn.bench import grow_batch

        model = recorded(self.model, **unit.options)
        grown = grow_batch(model, unit.batch, unit.chunks, drift=unit.drift, **unit.options)
        for chunk, (videos, frames) in enumerate(grown, 1):
            yield Measured(frames, videos if chunk == unit.chunks else [])


def recorded(helios: Helios, boost_first_chunk: bool | None = None, **_) -> Helios:
    """The same networks under a checkpoint that records that option; one that does not would keep it from working."""
    if boost_first_chunk is None:
        return helios
    config = helios.config
    config = replace(config, defaults=replace(config.defaults, boost_first_chunk=boost_first_chunk))
    return Helios(helios.checkpoint._replace(config=config), helios.parts, helios.embeddings)


@contextmanager
def spread_out(args: argparse.Namespace) -> Iterator:
    """`bench.grown` on --actors of --ray, or as many as there is room for."""
    slots = args.actors or os.cpu_count() or 1
    with actors.cluster(args.ray, slots * (args.threads or 1)) as ray:
        takes, room = actors.needs(ray, args.threads)
        count = args.actors or room
        with closing(actors.Pool(ray, Bencher, (args, os.getcwd()), count, takes)) as pool:
            yield partial(grown_by, pool)


def grown_by(pool: actors.Pool, name: str, _, scenes: list, args: argparse.Namespace, drift=None, **options):
    """As `bench.grown`; frames per second of all actors together. ValueError where a batch fails."""
    from tqdm import tqdm

    from ..drawn.bench import batches

    parts = batches(scenes, range(args.seeds), args.batch)
    units = [BenchBatch(part, args.chunks, drift, options) for part in parts]
    found, made, began = [[]] * len(units), [0] * len(units), time.perf_counter()
    with tqdm(total=len(units) * args.chunks, desc=name, unit="chunk", disable=None) as bar:
        for i, event in pool.run(units):
            if isinstance(event, Failed) or isinstance(event, actors.Gone) and not event.again:
                raise ValueError(f"--setting {name!r}: {event[0]}")
            if isinstance(event, actors.Gone):
                bar.write(f"an actor is lost ({event.why}); another takes its batch up", file=sys.stderr)
                made[i] = 0
            else:
                made[i] += event.frames
                found[i] = event.videos
                bar.update(1)
    return [video for part in found for video in part], sum(made) / (time.perf_counter() - began)
