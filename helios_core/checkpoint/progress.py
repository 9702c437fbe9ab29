"""How far the reading of weights is: whoever shows it says so once, and every reader tells what it has read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_count: ContextVar[Callable[[int], None] | None] = ContextVar("count", default=None)


@contextmanager
def telling(report: Callable[[int, int], None], total: int) -> Iterator[None]:
    """Until it ends, `report` is called with done and total bytes as weights are read in this thread. It may raise, to
    stop the reading."""
    done = 0

    def count(nbytes: int) -> None:
        nonlocal done
        done = min(total, done + nbytes)
        report(done, total)

    token = _count.set(count)
    try:
        yield
    finally:
        _count.reset(token)


def tell(nbytes: int) -> None:
    """So many bytes more are read."""
    count = _count.get()
    if count is not None:
        count(nbytes)
