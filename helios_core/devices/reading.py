"""A bar for what takes longer than a moment to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 2  # seconds before it appears


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in bytes with the time left, on stderr; called with done and total."""
    from tqdm import tqdm

    shown = tqdm(total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, delay=DELAY)
    with shown:
        yield lambda done, _: shown.update(done - shown.n)
