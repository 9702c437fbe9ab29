"""What an actor does: a model, opened once, and videos made with it, one after another."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, redirect_stderr, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from ..disk import Mirror, journal, owned
from . import HOST, messages
from .actors import Unfit
from .events import Encoded, Failed, Made, Opened, Said, Share
from .failures import caught
from .going_on import folder_of
from .group import GpuGroup
from .render import announce, is_chunk, open_model, render

PATIENCE = 60.0  # seconds that another may still have the folder of a run which it is taken from


class Texts(NamedTuple):
    """Prompts to encode, and negatives."""

    prompts: list[str]
    negatives: list[str]


class FilmTask(NamedTuple):
    """A video to make. url: where it goes, if no folder of this machine's."""

    args: argparse.Namespace
    url: str | None


class SaidLines(io.TextIOBase):
    """A text file whose lines are said, bars apart."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.rest = say, ""

    def write(self, text: str) -> int:
        """As a file has it."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in (line.rpartition("\r")[2].strip() for line in lines):
            if line and "%|" not in line:
                self.say(line)
        return len(text)


class There(Exception):
    """Another has made the video in the meantime."""


class Renderer:
    """args: those of the command, of which every video has its own. folder: where the command was begun."""

    def __init__(self, args: argparse.Namespace, folder: str):
        self.args, self.folder, self.model, self.group = args, folder, None, None

    def ready(self) -> None:
        """Answers once there is room for this actor."""

    def work(self, unit: Texts | FilmTask, rows: dict | None = None) -> Iterator:
        """What is said of a unit (events.py), until it is done. rows: embeddings by prompt."""
        queue = SimpleQueue()
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(self._work, unit, rows, queue.put)
            done.add_done_callback(lambda _: queue.put(None))
            while (event := queue.get()) is not None:
                yield event
            done.result()

    def _work(self, unit: Texts | FilmTask, rows: dict | None, tell: Callable) -> None:
        do = self._encode if isinstance(unit, Texts) else self._make
        failure = Failed if isinstance(unit, FilmTask) else Unfit
        if self.group is not None:
            HOST.set(self.group.host)
        for act, fault in ((self._open, Unfit), (partial(do, unit, rows), failure)):
            with redirect_stderr(SaidLines(lambda text: tell(Said(text)))), messages(), caught("generate") as found:
                act(tell)
            if found:
                if self.group is not None and self.group.host.leader.failed:
                    self.group.give_up()  # the others are out of step: this actor ends, and another is tried
                tell(fault(found[0].text))
                return

    def _open(self, tell: Callable) -> None:
        if self.model is not None:
            return
        with suppress(OSError):  # a machine that shares no folder: then paths must be whole, and files there
            os.chdir(self.folder)
        if (self.args.gpus or 1) > 1 and self.group is None:
            self.group = GpuGroup(self.args)
            HOST.set(self.group.host)
        with redirect_stderr(io.StringIO()) as said:
            model = open_model(self.args)
            announce(model, self.args)
        self.model = model
        tell(Opened(said.getvalue().strip()))

    def _encode(self, texts: Texts, _, tell: Callable) -> None:
        needed = self.model.encode_ahead(texts.prompts, texts.negatives, cfg=self.args.cfg)
        tell(Encoded(self.model.embeddings.rows(needed)))

    def _make(self, film: FilmTask, rows: dict | None, tell: Callable) -> None:
        self.model.embeddings.learn(rows or {})
        with ExitStack() as stack:
            args, mirror = film.args, None
            if film.url is not None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="helios-"))
                args = argparse.Namespace(**{**vars(args), "output": str(Path(folder, Path(args.output).name))})
                mirror = Mirror(film.url, folder_of(args.output))
                mirror.fetch()
            owned.wait(journal.place(folder_of(args.output)), PATIENCE)
            there = (lambda: False) if args.overwrite else (mirror.exists if mirror else Path(args.output).exists)
            with suppress(There), mirror.following() if mirror else nullcontext():
                made = render(self.model, args.prompt, args, announced=True, show=partial(show, tell, there))
            if mirror and not there():
                mirror.publish(made)
        tell(Made())


def show(tell: Callable, there: Callable[[], bool], events: Iterable, chunks: int) -> Iterator:
    """The same events, told as the video's share. Raises `There` where it is there by now; the run has its folder."""
    if there():
        raise There
    for event in events:
        if is_chunk(event):
            tell(Share((event.chunk + 1) / chunks, f"chunk {event.chunk + 1}/{chunks}, decoding"))
        else:
            share = (event.chunk + (event.index + 1) / (event.total + 1)) / chunks
            tell(Share(share, f"chunk {event.chunk + 1}/{chunks}, step {event.index + 1}/{event.total}"))
        yield event
