"""Files that appear whole or not at all, and outputs that are tried before the work.

A file is written beside its place under a name of its own, and takes its place in one step once it is on the disk: who
reads sees the old file or the new one, two processes never write into one, and after a failure the old one is there.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from .file_names import cut

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool = True) -> Iterator[Path]:
    """A new, empty file to write into; it becomes `path` when the block ends, and is removed if the block raises.

    Its name ends in .part, so that nobody takes it for a file of its kind: a writer that goes by endings must be told.
    It gets the permissions of the file that it replaces, else those of any new file. Of a link, the target is replaced.
    overwrite: if not, ValueError where there is a file, before the block and after it. OSError when the disk fails.
    """
    path = Path(os.path.realpath(path))
    if not overwrite:
        check_new(path)
    part = _part(path)
    part.open("xb").close()
    try:
        mode = stat.S_IMODE((path if path.is_file() else part).stat().st_mode)
        yield part
        with part.open("rb+") as file:  # a full disk may tell only now
            os.fsync(file.fileno())
        part.chmod(mode)
        if not overwrite:
            _claim(path)
        os.replace(part, path)
    except OSError as error:
        if error.errno in FULL and (error.filename is None or str(error.filename).endswith(part.name)):
            error.filename = str(path)  # by which people know it
        raise
    finally:
        with suppress(OSError):  # an error on the way here is the one to tell
            part.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """`path` with that content, in one step; text as UTF-8, its line ends as they are. OSError when the disk fails."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new, empty folder to fill; it becomes `path` when the block ends, and is removed if the block raises.

    ValueError where there is something already; OSError when the disk fails.
    """
    path = Path(path)
    check_new(path)
    part = _part(path)
    part.mkdir(parents=True)
    try:
        yield part
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def own_folder(path: str | os.PathLike) -> Path:
    """A new folder of that name, or of the next one that is free: two processes never get the same. OSError if none can
    be made."""
    for place in numbered(Path(path)):
        with suppress(FileExistsError):
            place.mkdir()
            return place


def check_new(path: Path) -> None:
    """ValueError where there is something at `path`."""
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; nothing is overwritten, choose another name or remove it")


def _claim(path: Path) -> None:
    """Makes an empty file that this process may replace: os.rename alone would replace another's without a word."""
    try:
        path.open("xb").close()
    except FileExistsError:
        check_new(path)


def _part(path: Path) -> Path:
    return path.with_name(cut(path.name, f".{os.getpid()}.{os.urandom(4).hex()}.part"))


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return f"its name is too long, {len(os.fsencode(path.name))} bytes; choose a shorter one"
    return f"{error.strerror}; choose another place"


def check_writable(path: str | os.PathLike) -> Path:
    """The path. ValueError, before the long work, unless a file can be written there. Leaves nothing behind."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"cannot write {path}: it is a folder; name a file in it")
        if not path.parent.is_dir():
            raise ValueError(f"cannot write {path}: {path.parent} is not an existing folder; create it first")
        if path.exists():
            path.open("rb+").close()
        _try(Path(os.path.realpath(path)))
    except OSError as error:
        raise ValueError(f"cannot write {path}: {_why(path, error)}") from error
    return path


def check_folder(folder: str | os.PathLike) -> Path:
    """The folder. ValueError unless it is one, or can be made, and takes files. Leaves nothing behind."""
    folder, made = Path(folder), []
    try:
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir()
            made.append(missing)
        _try(folder / "trial")
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {_why(folder, error)}") from error
    finally:
        for trial in reversed(made):
            with suppress(OSError):  # somebody else's by now
                trial.rmdir()
    return folder


def _try(path: Path) -> None:
    part = _part(path)
    part.open("xb").close()
    part.unlink()


def free_name(path: Path) -> Path:
    """The path, or the first of out_2.mp4, out_3.mp4 ... that is not taken."""
    return next(name for name in numbered(path) if not os.path.lexists(name))


def numbered(path: Path) -> Iterator[Path]:
    """The path, then out_2.mp4, out_3.mp4 ..."""
    return chain([path], (path.with_name(cut(path.stem, f"_{i}{path.suffix}")) for i in count(2)))


def beside(path: Path, ending: str) -> Path:
    """A path in the same folder: the name without its suffix, as much of it as there is room for, and the ending."""
    return path.with_name(cut(path.stem, ending))


def identity(path: str | os.PathLike) -> tuple[int, int] | None:
    """What two paths to one file or folder share, links and spellings apart; None where nothing is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return found.st_dev, found.st_ino
