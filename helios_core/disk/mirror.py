"""A run's folder and its video at a URL of fsspec's, such as s3://bucket/film.mp4: what is finished is there too.

What the journal lists goes up as it is finished, the journal's own lines last; whoever goes on fetches both first, so a
run may go on on a machine that shares no disk with the one that began it. Two runs at one URL are not kept apart.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .journal import ENTRIES, FILE
from .json_text import parse_object

EVERY = 1.0  # seconds between two looks at what is finished
LOG = logging.getLogger(__name__)


def is_url(text: str) -> bool:
    """Whether a place is fsspec's to write: it begins with a scheme, of more letters than a drive has."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def open_url(url: str):
    """fsspec's file system of a URL, and the path in it. ValueError where there is none."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be opened: {error}; pip install 'helios-video[ray]', and what it names"
        ) from error


class Mirror:
    """A video's URL, and the folder of its run beside it. root: the folder here."""

    def __init__(self, url: str, root: Path):
        self.fs, self.path = open_url(url)
        self.folder, self.root = f"{self.path.rpartition('.')[0]}_chunks", root
        self.there: set[str] = set()
        self.lines = b""

    def exists(self) -> bool:
        """Whether the video is there."""
        self.fs.invalidate_cache()
        return self.fs.exists(self.path)

    def check(self) -> None:
        """OSError unless files can be written there."""
        trial = f"{self.path}.trial"
        self.fs.makedirs(self.path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(trial, b"")
        self.fs.rm_file(trial)

    def fetch(self) -> None:
        """What an earlier run left, into the folder here."""
        self.fs.invalidate_cache()
        if not self.fs.exists(f"{self.folder}/{FILE}"):
            return
        self.root.mkdir(parents=True, exist_ok=True)
        lines = self.fs.cat_file(f"{self.folder}/{FILE}")
        for name in ("", f"{ENTRIES}/"):
            for path in self.fs.find(f"{self.folder}/{name}".rstrip("/"), maxdepth=1):
                target = self.root / name / path.rpartition("/")[2]
                target.parent.mkdir(exist_ok=True)
                if target.name != FILE:
                    self.fs.get_file(path, str(target))
        (self.root / FILE).write_bytes(lines)  # last: it lists what is there

    @contextmanager
    def following(self) -> Iterator[None]:
        """Inside, what is finished here is soon there."""
        stop = threading.Event()

        def follow() -> None:
            told = False
            while not stop.wait(EVERY):
                try:
                    self.push()
                except OSError as error:  # again at the next look
                    if not told:
                        LOG.warning("finished chunks do not get to %s: %s", self.folder, error)
                    told = True

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def push(self) -> None:
        """Sends up what is finished and not there. OSError when it fails."""
        if not (self.root / FILE).is_file():
            return
        lines = (self.root / FILE).read_bytes()
        lines = lines[: lines.rfind(b"\n") + 1]
        if lines == self.lines:
            return
        entries = [path.relative_to(self.root).as_posix() for path in (self.root / ENTRIES).glob("*.safetensors")]
        made = [parse_object(line, self.root / FILE).get("file") for line in lines.splitlines()]
        for name in (*entries, *filter(None, made)):
            if name not in self.there and (self.root / name).is_file():
                self._put(self.root / name, f"{self.folder}/{name}")
                self.there.add(name)
        self.fs.pipe_file(f"{self.folder}/{FILE}", lines)
        self.lines = lines

    def publish(self, video: Path) -> None:
        """The finished video, whole or not at all; the run's folder there goes."""
        with self.fs.transaction:
            self._put(video, self.path)
        self.fs.invalidate_cache()
        if self.fs.exists(self.folder):
            self.fs.rm(self.folder, recursive=True)

    def _put(self, file: Path, path: str) -> None:
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with file.open("rb") as source, self.fs.open(path, "wb") as target:
            shutil.copyfileobj(source, target, 2**20)
