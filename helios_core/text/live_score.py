"""The score of a run in work: what is not begun may be replaced while the run goes on, which may pause and end early.

The text always says what was made: a text that says anything else of a chunk begun is refused. So the last one is all
that is needed to make the video again. Safe between threads: a run asks before each chunk, others edit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from threading import Condition

from .editing import edit
from .prompts import PromptSchedule

TICK = 0.1  # seconds between two looks at Stop while a run pauses
LONGEST = 100_000  # characters of a score


class LiveScore:
    """The score that a run began with, as edited since.

    check: a text -> its PromptSchedule, or ValueError; changed: called, in the caller's thread, after every change.
    """

    def __init__(self, text: str, check: Callable = PromptSchedule.parse, changed: Callable = lambda: None):
        self.text = self.first = text
        self.check, self.changed = check, changed
        self.source = check(text)
        self.begun = self.done = 0  # chunks, from the beginning of the video
        self.total: int | None = None
        self.paused = self.ended = False
        self.edits = 0
        self._cells: tuple = (None, 0, [])
        self._turn = Condition()

    def begin(self, chunk: int, stop: Callable | None = None, total: int | None = None) -> PromptSchedule:
        """What chunk number `chunk` is made by; waits while the run pauses. stop: raises where it was stopped.

        total: chunks of the video, where that is known.
        """
        with self._turn:
            if self.ended:
                return self.source
            self._keep_what_was_made(chunk)
            self.total, self.done = total, max(self.done, chunk)
        self.changed()
        with self._turn:
            while self.paused:
                self._turn.wait(TICK)
                if stop:
                    stop()
            if self.source.end is not None and chunk >= self.source.end:
                self.ended = True
            else:
                self.begun = max(self.begun, chunk + 1)
            found = self.source
        self.changed()
        return found

    def _keep_what_was_made(self, chunk: int) -> None:
        """Chunks before the first that was asked for came from elsewhere, as the run began with: an edit of them goes.

        So it is where ComfyUI had them from the run before, or a saved run is gone on with.
        """
        if self.begun == 0 and self.edits and _difference(PromptSchedule.parse(self.first), self.source, chunk):
            self.text, self.source = self.first, self.check(self.first)

    def finish(self, chunk: int) -> None:
        """Chunk number `chunk` is made."""
        with self._turn:
            self.done = max(self.done, chunk + 1)
        self.changed()

    def replace(self, text: str, base: str | None = None) -> None:
        """Takes another score for the chunks that are not begun.

        base: the text that it was made from; another one meanwhile is not overwritten. ValueError says why it is
        refused; the run goes on as it was.
        """
        if len(text) > LONGEST:
            raise ValueError(f"a score of {len(text)} characters: wanted {LONGEST} at most")
        wanted = self.check(text)
        with self._turn:
            if base is not None and base != self.text:
                raise ValueError("the score was changed meanwhile: read it again, and edit that")
            if self.ended:
                raise ValueError("the video has ended by its score: it needs a retake")
            if (chunk := _difference(self.source, wanted, self.begun)) is not None:
                state = "made already" if chunk < self.done else "in work"
                raise ValueError(f"chunk {chunk} is {state}: to change it needs a retake")
            if wanted.end is not None and wanted.end < self.begun:
                raise ValueError(f"chunk {self.begun - 1} is begun: the video can end before chunk {self.begun}")
            self.edits += text != self.text
            self.text, self.source = text, wanted
        self.changed()

    def edit(self, chunk: int, base: str | None = None, **changes) -> None:
        """Edits one entry, as `editing.edit` does. ValueError says why it is refused."""
        seen = self.text if base is None else base
        self.replace(edit(seen, chunk, **changes), seen)

    def pause(self) -> None:
        """The next chunk waits."""
        self._pause(True)

    def go_on(self) -> None:
        """No chunk waits any more."""
        self._pause(False)

    def _pause(self, paused: bool) -> None:
        with self._turn:
            self.paused = paused
            self._turn.notify_all()
        self.changed()

    def stop(self) -> None:
        """Ends the video after the chunk in work, which is written into the score. ValueError where none is begun."""
        if not self.begun:
            raise ValueError("no chunk is begun yet, so there is nothing to keep: cancel the run instead")
        if not self.ended and (self.source.end is None or self.source.end > self.begun):
            self.edit(self.begun, end=True)
        self.go_on()

    def status(self) -> dict:
        """All that is known, for JSON. chunks: as `cells`, with state: done, working, or waiting."""
        with self._turn:
            last = max(self.begun, self.source.cues[-1].chunk + 1, self.total or 0)
            last = last if self.source.end is None else min(last, self.source.end)
            count = min(last, self.begun + 100)
            if self._cells[:2] != (self.source, count):
                self._cells = self.source, count, cells(self.source, count)
            chunks = [{**cell, "state": self._state(cell["chunk"])} for cell in self._cells[2]]
            names = ("text", "first", "begun", "done", "total", "paused", "ended", "edits")
            return {**{name: getattr(self, name) for name in names}, "chunks": chunks}

    def _state(self, chunk: int) -> str:
        return "done" if chunk < self.done else "working" if chunk < self.begun else "waiting"


def cells(source: PromptSchedule, count: int) -> list[dict]:
    """What each of the first `count` chunks is made by, for JSON: {"chunk", "prompts": [[prompt, share]], settings}."""
    found = []
    for chunk in range(count):
        settings = {name: value for name, value in asdict(source.direction(chunk)).items() if name != "end"}
        found.append({"chunk": chunk, "prompts": [list(share) for share in source.shares(chunk)], **settings})
    return found


def _difference(one: PromptSchedule, two: PromptSchedule, count: int) -> int | None:
    """The first of so many chunks that two schedules make by different things; None where there is none."""
    for chunk in range(count):
        if (one.shares(chunk), one.direction(chunk)) != (two.shares(chunk), two.direction(chunk)):
            return chunk
    return None
