"""`helios run`: a workflow file, executed with this pack's nodes, without ComfyUI."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from tqdm import tqdm

from .. import workflow
from ..devices import INSTALL, installed
from . import set_threads
from .going_on import command_again


def run(args: argparse.Namespace) -> int:
    """Prints the files written on stdout. ValueError for anything wrong with the file, before any node runs."""
    if not installed("torch"):
        raise ValueError(f"nodes hand torch tensors on, whatever computes; {INSTALL['torch']}, or use helios generate")
    set_threads(args.threads)
    pack = import_module(__package__.rsplit(".", 2)[0])
    with Bars() as bars, needs_told(pack.__name__):
        result = workflow.run(
            args.workflow,
            pack.NODE_CLASS_MAPPINGS,
            overrides(args.sets),
            output_dir=args.output_dir,
            input_dir=args.input_dir,
            on_progress=bars,
            again=command_again(args, "output_dir"),
        )
    for title, text in result.texts.items():
        print(f"{title}: {text}")
    for file in result.files:
        print(file)
    return 0


@contextmanager
def needs_told(package: str) -> Iterator[None]:
    """Inside, what a workflow needs of memory is told, before it is loaded or begun."""
    log = logging.getLogger(f"{package}.nodes.managed")
    before = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)


def overrides(sets: list[str]) -> dict[str, str]:
    """["3.seed=5"] -> {"3.seed": "5"}. ValueError for text that is no NODE.INPUT=VALUE."""
    pairs = [text.partition("=") for text in sets]
    for text, (name, equals, _) in zip(sets, pairs, strict=True):
        if not equals or "." not in name:
            raise ValueError(f"--set {text}: wanted NODE.INPUT=VALUE, such as T5Encode.text='a red ball'")
    return {name: value for name, _, value in pairs}


class Bars:
    """A progress bar per node that reports progress: called with workflow.Progress, a context manager."""

    def __init__(self):
        self._bar, self._node = None, None

    def __call__(self, progress: workflow.Progress) -> None:
        if progress.node != self._node:
            self.close()
            self._node = progress.node
        if not progress.total:
            return
        if self._bar is None:
            self._bar = tqdm(total=progress.total, desc=progress.title, unit="step")
        self._bar.update(progress.value - self._bar.n)

    def close(self) -> None:
        """Ends the bar that is open, if one is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_) -> None:
        self.close()
