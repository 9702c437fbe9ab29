"""A clip that grows one chunk behind: while a chunk is encoded, the caller already computes the next one.

Blocks of frames are made in the caller's thread, whose devices and signals they need, and encoded in another. At most
one chunk is on its way. It counts as finished, and the clip has it, once its file is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from .clip import Clip

END, STOP = object(), object()


class Stopped(Exception):
    """The frames of a chunk end in the middle; its file stays unfinished."""


class Feed:
    """Blocks on their way from one thread to another. asked: once the other wants the first, or wants none."""

    def __init__(self):
        self.queue, self.asked, self.left = SimpleQueue(), threading.Event(), False

    def __iter__(self) -> Iterator[np.ndarray]:
        self.asked.set()
        while (block := self.queue.get()) is not END:
            if block is STOP:
                raise Stopped
            yield block

    def leave(self) -> None:
        """The other thread takes no more."""
        self.left = True
        self.asked.set()


class Growing:
    """One chunk: grow(clip, blocks) at work in a thread, which gives the longer clip."""

    def __init__(self, clip: Clip, grow: Callable[[Clip, Iterable[np.ndarray]], Clip]):
        self.feed, thread = Feed(), ThreadPoolExecutor(1, "helios-encode")
        self.future = thread.submit(grow, clip, self.feed)
        self.future.add_done_callback(lambda _: self.feed.leave())
        thread.shutdown(wait=False)

    def give(self, blocks: Iterable[np.ndarray]) -> None:
        """Hands blocks on as they are made, none if none are wanted, until the thread takes no more."""
        last = STOP
        try:
            self.feed.asked.wait()
            if not self.feed.left:
                for block in blocks:
                    self.feed.queue.put(block)
                    if self.feed.left:
                        break
            last = END
        finally:
            self.feed.queue.put(last)

    def failed(self) -> BaseException | None:
        """What the thread raised, once it is through."""
        return self.future.exception()

    def result(self) -> Clip:
        """Once the file is closed. What the thread raised is raised here."""
        return self.future.result()


class Behind:
    """A clip to append to, as a context manager. clip: with all the chunks that are finished.

    An error of a chunk is raised by the next `append`, or at the end. Whatever ends the context, a chunk whose frames
    are all there is finished first.
    """

    def __init__(self, clip: Clip):
        self.clip, self._growing = clip, None

    def append(self, blocks: Iterable[np.ndarray], grow: Callable[[Clip, Iterable[np.ndarray]], Clip]) -> None:
        """Grows the clip by grow(clip, blocks), such as `Clip.append`, called in the thread; blocks are made now, if it
        asks for any. Waits first for the chunk before."""
        self.finish()
        self._growing = Growing(self.clip, grow)
        self._growing.give(blocks)

    def finish(self) -> Clip:
        """The clip, once the chunk on its way is in it."""
        growing, self._growing = self._growing, None
        if growing is not None:
            self.clip = growing.result()
        return self.clip

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.finish()
        elif self._growing is not None and self._growing.failed() is None:  # the first error is the one to report
            self.finish()
