"""A run's journal: what is finished, in the order in which it was, and what made it. A store of the run's own.

It stands in the folder of the run's files, a line for each, put there last: behind a kill, the same command or `helios
resume FOLDER` takes up what it lists, and only that. The folder belongs to one live run, and to one set of settings. It
is bounded by the run, and cleared away once the run is through.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from . import owned
from .file_names import inside
from .json_text import parse_object
from .safe_files import numbered, write
from .store import Store, digest, fingerprint

FILE, ENTRIES = "journal.jsonl", "entries"
FORMAT, VERSION = "helios-run", 1
MOST = 5  # differences that a message names


class Journal(Store):
    """Entries in `place`, files beside them in its parent.

    root: the folder; settings: what the result depends on; again: the command that goes on, empty if there is none;
    went_on: files that an earlier run left finished; behind: another store, which is asked too and given the same.
    """

    def __init__(self, root: Path, lock, settings: dict, again: Sequence[str] = (), behind: Store | None = None):
        super().__init__(root / ENTRIES, math.inf)
        self.root, self.settings, self.again, self.behind, self._lock = root, settings, [*again], behind, lock
        self.listed: dict[str, str] = {}
        self.outputs: dict[str, dict] = {}
        self.went_on = 0

    @classmethod
    def begin(cls, path: Path, settings: dict, again: list[str], behind: Store | None = None) -> Journal:
        """The journal of a run in the folder `path`, or in the next of that name where something else stands there.

        settings: JSON that the result depends on. again: the arguments of `helios` that go on. ValueError where a live
        run has the folder, or one that was stopped has it with other settings. OSError when the disk fails.
        """
        root = place(path)
        lock = owned.take(root)
        if lock is None:
            raise ValueError(f"another run is at work in {root}; wait for it, or name another output")
        made = cls(root, lock, json.loads(json.dumps(settings)), again, behind)
        with ExitStack() as failing:
            failing.callback(lock.close)
            made._take_up()
            failing.pop_all()
        return made

    def _take_up(self) -> None:
        if (head := read_head(self.root)) is not None:
            self._read_lines()
            found = differences(head["settings"], self.settings)
            if found and not self.listed:  # nothing was finished with the others
                self._empty()
            elif found:
                raise ValueError(
                    f"{self.root} holds a run that was stopped, with other settings: {'; '.join(found)}. Go on with it "
                    f"({command(self.root)}), name another output, or remove that folder"
                )
        self._clean()
        lines = [{"made": key, "file": name} for key, name in self.listed.items()]
        lines += [{"output": key, **value} for key, value in self.outputs.items()]
        head = {"format": FORMAT, "version": VERSION, "settings": self.settings}
        head |= {"again": self.again, "in": os.getcwd(), "root": str(self.root.absolute())}
        write(self.root / FILE, "".join(json.dumps(line) + "\n" for line in (head, *lines)))
        self.went_on = len(self.listed)

    def _read_lines(self) -> None:
        for line in _lines(self.root)[1:]:
            made, output, file, mark = (line.get(name) for name in ("made", "output", "file", "mark"))
            if isinstance(made, str) and isinstance(file, str) and _is_in(self.root, file):
                self.listed[made] = file
            elif all(isinstance(value, str) for value in (output, file, mark)):
                self.outputs[output] = {"file": file, "mark": mark}

    def _clean(self) -> None:
        """What was never finished, or finished and not listed yet, is made again: nothing is there twice."""
        kept = {self.root / name for name in self.listed.values()}
        for pattern in ("*.part", "*.part.mp4", "chunk_*.mp4"):
            for path in self.root.rglob(pattern):
                if path not in kept:
                    path.unlink(missing_ok=True)

    def arrays(self, key: str) -> dict[str, np.ndarray] | None:
        """As Store has it."""
        found = super().arrays(key)
        return found if found is not None or self.behind is None else self.behind.arrays(key)

    def file(self, key: str, suffix: str) -> Path | None:
        """The file listed under the key, if it is there."""
        if key in self.listed and (path := self.root / self.listed[key]).is_file():
            return path
        return None if self.behind is None else self.behind.file(key, suffix)

    def keep(self, key: str, arrays: Mapping[str, np.ndarray], file: Path | None = None) -> None:
        """Keeps arrays, and lists a file that lies in the run's folder. OSError when the disk fails."""
        self._put(key, arrays)
        if file is not None:
            with file.open("rb+") as written:
                os.fsync(written.fileno())
            self.listed[key] = file.relative_to(self.root).as_posix()
            self._add({"made": key, "file": self.listed[key]})
        if self.behind is not None:
            self.behind.keep(key, arrays, file)

    def writes(self, key: str, path: Path, mark: str = "") -> None:
        """Notes where the run writes what has that place in it; mark: the file's fingerprint, once it is written."""
        self.outputs[key] = {"file": str(path.absolute()), "mark": mark}
        self._add({"output": key, **self.outputs[key]})

    def written(self, key: str, ours: Callable[[Path], bool]) -> Path | None:
        """The place noted under the key, unless another's file is there by now. ours: of a file that was perhaps
        written, and not noted any more."""
        if (noted := self.outputs.get(key)) is None:
            return None
        path, mark = Path(noted["file"]), noted["mark"]
        free = not path.exists() or (fingerprint(path) == mark if mark else ours(path))
        return path if free else None

    def _add(self, line: dict) -> None:
        with (self.root / FILE).open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Clears the folder away. What tells that the run is through, or not, goes last."""
        self._empty()
        (self.root / FILE).unlink(missing_ok=True)
        owned.give_up(self._lock, self.root)

    def _empty(self) -> None:
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in (FILE, owned.LOCK):
                path.unlink(missing_ok=True)

    def close(self) -> str:
        """Lets the folder go after a run that was stopped, and says what is left there; clears it away if nothing is.
        After `finish` there is nothing to say."""
        if self._lock.closed:
            return ""
        if not (count := len(playable(self.root))):
            with suppress(OSError):
                self.finish()
            return ""
        self._lock.close()
        how = command(self.root) if self.again else "the same run"
        return f"{told(count)} in {self.root}, a playable file each; go on with: {how}"


def mark(settings: dict) -> str:
    """A few digits for a run's settings."""
    return digest(settings)[:16]


def place(path: Path) -> Path:
    """The folder of a run: the first of NAME, NAME_2 ... that is free, a run's, or empty."""
    return next(
        root
        for root in numbered(path)
        if not os.path.lexists(root) or ((root / FILE).is_file() or root.is_dir() and all(map(_ours, root.iterdir())))
    )


def _ours(path: Path) -> bool:
    return path.name == owned.LOCK or path.name.startswith(FILE)


def _is_in(root: Path, name: str) -> bool:
    try:
        return inside(root, name).is_file()
    except ValueError:
        return False


def read_head(root: Path) -> dict | None:
    """What a journal says of its run; None where there is none. ValueError for a damaged one, or a newer version's."""
    if not (root / FILE).is_file():
        return None
    head = next(iter(_lines(root)), {})
    kinds = {"settings": dict, "again": list, "in": str, "root": str}
    if head.get("format") != FORMAT or any(type(head.get(name)) is not kind for name, kind in kinds.items()):
        raise ValueError(f"{root / FILE} is no journal of a run that can be read; remove the folder, or name another")
    if head.get("version") != VERSION:
        raise ValueError(f"{root} holds a run of another version of this pack; finish it with that one, or remove it")
    return head


def _lines(root: Path) -> list[dict]:
    """The journal's lines; one that was cut, and what is behind it, never came to be."""
    found = []
    for line in (root / FILE).read_bytes().splitlines(keepends=True):
        try:
            found.append(parse_object(line if line.endswith(b"\n") else b"", root / FILE))
        except ValueError:
            break
    return found


def clear_away(root: Path) -> bool:
    """Removes a run's folder; False where the run is alive."""
    if (lock := owned.take(root)) is None:
        return False
    Journal(root, lock, {}).finish()
    return True


def clear_rest(root: Path) -> None:
    """Removes the folder that a run left which was killed as it cleared it away; nothing where it holds anything."""
    if root.is_dir() and all(map(_ours, root.iterdir())):
        clear_away(root)


def playable(root: Path) -> list[Path]:
    """Finished chunks in a run's folder."""
    return [path for path in root.rglob("chunk_*.mp4") if not path.name.endswith(".part.mp4")]


def told(count: int) -> str:
    """So many finished chunks, as a sentence begins."""
    return "1 finished chunk is" if count == 1 else f"{count} finished chunks are"


def command(root: Path) -> str:
    """What a user types to go on with the run in a folder."""
    return shlex.join(["helios", "resume", str(root)])


def differences(before: dict, now: dict) -> list[str]:
    """What two runs' settings differ in, in words, the first few of them."""
    found = [
        f"{name} was {_shown(before.get(name))}, is {_shown(now.get(name))}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    return found if len(found) <= MOST else [*found[:MOST], f"and {len(found) - MOST} more"]


def _shown(value) -> str:
    text = "not given" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-12:]}"
