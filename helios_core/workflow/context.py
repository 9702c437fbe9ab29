"""The run that a node belongs to: where its files go, what it reports. A node asks `current()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..disk import Journal, fingerprint
from ..join import read_metadata

_CURRENT: ContextVar[Run | None] = ContextVar("helios_workflow", default=None)


class Progress(NamedTuple):
    """A node has done `value` of `total`; total is 0 when it has just started."""

    node: str
    title: str
    value: int
    total: int


@dataclass
class Run:
    """One execution: where its files go, the node classes it knows, and what it has made so far.

    prompt: the nodes, in API format. journal: from when nodes run on.
    """

    prompt: dict
    output_dir: Path
    input_dir: Path
    on_progress: Callable[[Progress], None]
    classes: dict
    files: list[Path] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    journal: Journal | None = None
    node: str = ""
    title: str = ""
    _asked: Counter = field(default_factory=Counter)
    _keys: dict[Path, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Chunks and other files on the way. Removed after a run that finishes; one that does not leaves its chunks."""
        return self.journal.root

    def clip_folder(self) -> Path:
        """For the next clip's chunks: the same in the run that goes on."""
        return self.folder / self._next("clip")

    def new_file(self, free: Callable[[], Path]) -> Path:
        """Where the running node's next file goes: where the run that is gone on with had it, else `free()`."""
        key = self._next(f"node {self.node} file")
        path = self.journal.written(key, self._is_ours) or free()
        self._keys[path] = key
        self.journal.writes(key, path)
        return path

    def made(self, path: Path) -> None:
        """Such a file is written."""
        self.files.append(path)
        self.journal.writes(self._keys[path], path, fingerprint(path))

    def _is_ours(self, path: Path) -> bool:
        """Whether a file is a video of this very workflow."""
        try:
            return path.suffix == ".mp4" and read_metadata(path).get("prompt") == self.prompt
        except (OSError, ValueError):
            return False

    def _next(self, kind: str) -> str:
        self._asked[kind] += 1
        return f"{kind} {self._asked[kind]}"

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
