"""Ctrl-C, also while the command line is still being read in, which takes a second on a slow disk; and SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

CODE = 130  # of a command that Ctrl-C stopped
TERMINATED = 143  # of one that SIGTERM did


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is raised."""


def hear_terminate() -> None:
    """From here on SIGTERM raises `Terminated`, unless it is deaf to it: what is kept is said, as after Ctrl-C."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_):
    raise Terminated


def stop_at_once() -> None:
    """Until `as_usual`, Ctrl-C ends a process that was started as the `helios` command. Others are let alone."""
    started = sys.argv[:1] == ["-m"] or PurePath((sys.argv or [""])[0]).stem == "helios"
    if started and threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)


@contextmanager
def at_once() -> Iterator[None]:
    """Inside too: a library that is interrupted as it loads may abort the process."""
    stop_at_once()
    try:
        yield
    finally:
        as_usual()


def as_usual() -> None:
    """From here on it raises KeyboardInterrupt, as everywhere."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(*_) -> None:
    os.write(2, b"stopped\n")
    os._exit(CODE)
