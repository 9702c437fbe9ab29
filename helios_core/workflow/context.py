"""The run that a node belongs to: where its files go, what it reports. A node asks `current()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_CURRENT: ContextVar[Run | None] = ContextVar("helios_workflow", default=None)


class Progress(NamedTuple):
    """A node has done `value` of `total`; total is 0 when it has just started."""

    node: str
    title: str
    value: int
    total: int


@dataclass
class Run:
    """One execution: where its files go, the node classes it knows, and what it has made so far."""

    name: str
    output_dir: Path
    input_dir: Path
    on_progress: Callable[[Progress], None]
    classes: dict
    prompt: dict = field(default_factory=dict)  # the workflow's nodes by id
    files: list[Path] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    node: str = ""
    title: str = ""
    finished: bool = False

    @property
    def folder(self) -> Path:
        """Chunks and other files on the way. Removed after a run that finishes; one that does not leaves its chunks."""
        return self.output_dir / f"{self.name}_chunks"

    def starts(self, node: str, title: str) -> None:
        """A node starts to run."""
        self.node, self.title = node, title
        self.report(0, 0)

    def report(self, value: int, total: int) -> None:
        """The running node has done `value` of `total`."""
        self.on_progress(Progress(self.node, self.title, value, total))


def current() -> Run | None:
    """The run that the calling node belongs to; None outside one."""
    return _CURRENT.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Inside, `current` is that run."""
    token = _CURRENT.set(run)
    try:
        yield run
    finally:
        _CURRENT.reset(token)
