"""`helios study policies --ray`: what is to be measured, by the actors of a cluster. They hand it back, and files are
written here, so a rerun reads them as ever."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from .. import load
from ..checkpoint import folders
from . import Terminal, actors, set_threads
from .events import Failed
from .failures import caught


class Held(NamedTuple):
    """What goes into a job's file."""

    content: dict


class Studier:
    """What an actor does. args: those of the command; sizes: how much is measured. folder: where it was begun."""

    def __init__(self, args: argparse.Namespace, sizes, folder: str):
        self.args, self.sizes, self.folder, self.model = args, sizes, folder, None

    def ready(self) -> None:
        """Answers once there is room for this actor."""

    def work(self, job, _=None) -> Iterator:
        """One job's figures."""
        from ..study import experiment, policies

        with caught("study") as failed:
            self._open()
        if failed:
            yield actors.Unfit(failed[0].text)
            return
        with caught("study") as failed:
            yield Held(experiment.measure_job(self.model, job, policies.PARTS, self.sizes))
        if failed:
            yield Failed(failed[0].text)

    def _open(self) -> None:
        if self.model is None:
            with suppress(OSError):
                os.chdir(self.folder)
            set_threads(self.args.threads)
            self.model = load(self.args.model, vae=folders.find_file("vae", self.args.vae), host=Terminal())


def measure_all(helios, parts, sizes, folder: Path, args: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Files of all jobs that have none. ValueError for one that fails, once the others are through."""
    from ..study import experiment

    found = experiment.all_jobs(helios, parts, sizes, folder)
    todo = [job for job in found if experiment.read(job.file, job.made_of) is None]
    if not todo:
        return
    slots, faults = args.actors or min(len(todo), os.cpu_count() or 1), []
    with actors.cluster(args.ray, slots * (args.threads or 1)) as ray:
        takes, room = actors.needs(ray, args.threads)
        count = min(len(todo), args.actors or room)
        with closing(actors.Pool(ray, Studier, (args, sizes, os.getcwd()), count, takes)) as pool:
            for i, event in pool.run(todo):
                if isinstance(event, Held):
                    experiment.write_json(todo[i].file, event.content)
                    tell(f"{todo[i].title}: {event.content['seconds']:.1f} s")
                elif isinstance(event, Failed) or not event.again:
                    faults.append(f"{todo[i].title}: {event[0]}")
                else:
                    tell(f"{todo[i].title}: its actor is lost ({event.why}); another takes it up")
    if faults:
        raise ValueError("; ".join(faults))
