"""`helios generate --prompts-file --ray`: the videos of a file spread over a Ray cluster, one at a time for each actor.

What is finished is in the output folder, chunk by chunk, or at a URL: an actor that is lost is replaced, and another
goes on where its video was. The same command again does what is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..config import check_whole
from ..disk import Mirror, is_url
from . import actors, gpus, start
from .batch import Fault, Job, finished, read_jobs, tell_failed, tell_faults
from .events import Encoded, Failed, Made, Opened, Said, Share
from .going_on import command_again
from .renderer import FilmTask, Renderer, Texts


def spread(args: argparse.Namespace) -> int:
    """As `batch.batch`: prints the name of every file made on stdout; 1 if any failed. ValueError for what cannot be,
    before any work, and where no actor can do anything."""
    check(args)
    start.settle_seed(args)
    with place(args) as url:
        if url is None:
            args.line = command_again(args, "output")
        jobs, failed = read_jobs(Path(args.prompts_file), args)
        total = len(jobs) + len(failed)
        tell_faults(args, jobs, failed)
        todo = [job for job in jobs if args.overwrite or not (finished(job) if url is None else uploaded(job, url))]
        if todo and url is not None:
            Mirror(f"{url}/{todo[0].out.name}", Path()).check()
        failed += work(todo, args, url) if todo else []
    return tell_failed(failed, total)


def check(args: argparse.Namespace) -> None:
    """ValueError for options that do not go together."""
    actors.check_options(args)
    if args.prompts_file is None:
        raise ValueError("--ray spreads the videos of --prompts-file; give both, or leave it out")
    gpus.check(args)
    if args.live is not None:
        raise ValueError("--live shows one video: leave it out with --prompts-file")
    if args.threads is not None:
        check_whole("--threads", args.threads, 1024)


@contextmanager
def place(args: argparse.Namespace) -> Iterator[str | None]:
    """The URL that --output lies in, in whose place it then names a file of a folder of ours; None where it is none."""
    if not is_url(args.output):
        yield None
        return
    url, _, name = args.output.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        args.output = str(Path(folder, name))
        yield url


def uploaded(job: Job, url: str) -> bool:
    """Whether the job's video is at its URL; says so."""
    where = f"{url}/{job.out.name}"
    if there := Mirror(where, Path()).exists():
        print(f"line {job.line}: {where} is there already", file=sys.stderr)
    return there


def work(todo: list[Job], args: argparse.Namespace, url: str | None) -> list[Fault]:
    """All of them; those that failed."""
    films = []
    for job in todo:
        own = argparse.Namespace(**{**vars(job.args), "output": str(job.out.absolute())})
        films.append(FilmTask(own, None if url is None else f"{url}/{job.out.name}"))
    group, slots = args.gpus or 1, args.actors or min(len(todo), os.cpu_count() or 1)
    with closing(Board(todo, films)) as board, actors.cluster(args.ray, slots * group * (args.threads or 1)) as ray:
        takes, room = actors.needs(ray, args.threads, group)
        count = min(len(todo), args.actors or room)
        each = f" of {group} GPUs each" if group > 1 else ""
        board.say(f"{len(todo)} videos on {count} actor{'s' if count > 1 else ''}{each}")
        with closing(actors.Pool(ray, Renderer, (args, os.getcwd()), count, takes)) as pool:
            rows = encode(todo, pool, board)
            for i, event in pool.run(films, ray.put(rows)):
                board.hear(i, event)
    return board.faults


def encode(todo: list[Job], pool: actors.Pool, board: Board) -> dict:
    """The embeddings of all prompts, by one actor. ValueError where none can."""
    prompts, negatives = (
        dict.fromkeys(texts) for texts in zip(*((j.args.prompt, j.args.negative or "") for j in todo))
    )
    rows = {}
    for _, event in pool.run([Texts(list(prompts), list(negatives))]):
        if isinstance(event, Encoded):
            rows = event.rows
        elif isinstance(event, actors.Gone) and not event.again:
            raise ValueError(f"prompts cannot be encoded: {event.why}")
        else:
            board.hear(None, event)
    return rows


class Board:
    """The progress of all videos, in one line on stderr; what is said of them above it."""

    def __init__(self, todo: Sequence[Job], films: Sequence[FilmTask]):
        from tqdm import tqdm

        self.todo, self.films, self.faults, self.out = todo, films, [], sys.stdout
        self.done, self.now, self.heard = {}, {}, set()
        form = "{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining} {postfix}"
        self.bar = tqdm(total=len(todo), bar_format=form, dynamic_ncols=True, disable=None)

    def hear(self, i: int | None, event) -> None:
        """What an actor says of a video; None: of none."""
        head = "" if i is None else f"line {self.todo[i].line}: "
        if isinstance(event, Share):
            self._show(i, event.done, event.text)
        elif isinstance(event, Made):
            self._show(i, 1.0, "")
            self.say(self.films[i].url or str(self.todo[i].out), self.out)
        elif isinstance(event, Said):
            self.say(head + event.text)
        elif isinstance(event, Opened) and event.text not in self.heard:
            self.heard.add(event.text)
            self.say(event.text)
        elif isinstance(event, actors.Gone) and event.again:
            self.say(f"{head}its actor is lost ({event.why}); another takes it up")
        elif isinstance(event, (Failed, actors.Gone)):
            why = event.text if isinstance(event, Failed) else f"{actors.TRIES} actors were lost over it: {event.why}"
            self._show(i, 1.0, "")
            self.say(f"{head}failed: {why}")
            self.faults.append(Fault(self.todo[i].line, self.todo[i].args.prompt, why))

    def say(self, text: str, file=None) -> None:
        """A line above the bar."""
        file = file or sys.stderr
        self.bar.write(text, file=file)
        file.flush()

    def _show(self, i: int, done: float, text: str) -> None:
        self.done[i] = done
        self.now[i] = text
        ends = sum(1 for one in self.done.values() if one >= 1)
        at = "; ".join(f"line {self.todo[k].line}: {self.now[k]}" for k in sorted(self.now) if self.now[k])
        self.bar.set_postfix_str(f"{ends} of {len(self.todo)} done. {at}", refresh=False)
        self.bar.update(sum(self.done.values()) - self.bar.n)

    def close(self) -> None:
        """Ends the bar; says what is left."""
        self.bar.close()
        ends = sum(1 for one in self.done.values() if one >= 1)
        if self.done and ends < len(self.todo):
            print(f"{ends} of {len(self.todo)} done; the same command goes on", file=sys.stderr)
