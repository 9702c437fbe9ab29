"""Where `helios generate` writes: never over what it reads, and over another file only if that was asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..join import check_writable
from ..safe_files import free_name, identity

READ = ("image", "video", "resume", "prompts_file")  # options of files that may bear an output's name


def check_apart(out: Path, args: argparse.Namespace) -> None:
    """ValueError if `out` is one of the files that the arguments name to be read, by whatever path."""
    place = identity(out)
    for name in READ:
        path = getattr(args, name)
        if place is not None and path is not None and identity(path) == place:
            raise ValueError(f"{out} is what --{name.replace('_', '-')} reads; name another output")


def choose_output(args: argparse.Namespace) -> Path:
    """--output, or the next free name if there is a file and no --overwrite, which is said on stderr.

    ValueError, before any work, where it cannot be written, and for --overwrite of a file that this run reads.
    """
    out = check_writable(args.output)
    if args.overwrite:
        check_apart(out, args)
        return out
    free = check_writable(free_name(out))
    if free != out:
        print(f"{out} is there already; this video becomes {free} (--overwrite replaces the old one)", file=sys.stderr)
    return free
