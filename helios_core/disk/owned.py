"""A folder that belongs to one live process: it holds the lock of a file there, which goes when the process does,
however it ends."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LOCK = "lock"


def take(folder: Path) -> BinaryIO | None:
    """The folder's lock, to be held open, in a folder that is made if need be; None where a live run has it. OSError
    where it cannot be made."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = (folder / LOCK).open("ab")
        except FileNotFoundError:  # cleared away in this moment
            continue
        if not _locked(lock):
            lock.close()
            return None
        with suppress(OSError):
            there, held = os.stat(folder / LOCK), os.fstat(lock.fileno())
            if os.path.samestat(there, held):
                return lock
        lock.close()


def wait(folder: Path, seconds: float) -> None:
    """Returns once no live run has the folder, or after so many seconds."""
    end = time.monotonic() + seconds
    while folder.is_dir():
        if (lock := take(folder)) is not None:
            lock.close()
        if lock is not None or time.monotonic() > end:
            return
        time.sleep(0.2)


def give_up(lock: BinaryIO, folder: Path) -> None:
    """Lets a folder go that holds nothing but the lock, and removes it."""
    if os.name == "nt":  # which removes no open file
        lock.close()
    with suppress(OSError):  # another run has it by now
        (folder / LOCK).unlink()
        folder.rmdir()
    lock.close()


def _locked(file: BinaryIO) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        pass
    return True
