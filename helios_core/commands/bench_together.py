"""`helios bench speed --gpus N`: rows of one video on several GPUs, in the table of one.

The processes are those of `helios generate --gpus`: the first measures as one alone does, the others compute along.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import check_whole
from ..devices import choose
from . import HOST, gpus


def check(args: argparse.Namespace) -> None:
    """ValueError for a number or a backend that cannot be."""
    check_whole("--gpus", args.gpus, gpus.MOST)
    if choose(args.backend) != "torch":
        raise ValueError("several GPUs need backend torch; choose it, or leave --gpus out")


def take_part(args: argparse.Namespace, make: Callable, cases: list) -> int:
    """This process's work, of those that `gpus.start` or torchrun started. make(folder): a Bench; cases: its."""
    args.split_guidance = args.shard = False

    def lead(_) -> int:
        host = HOST.get()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            bench = make(Path(folder))
            for i, case in enumerate(cases):
                if i:
                    host.leader.end()
                host.opened(bench.open(case).config)
                row = bench.measure(case)
                print(replace(row, name=f"{row.name}, {host.ranks.count} GPUs"), flush=True)
        return 0

    def follow(_, host: gpus.Member, follower) -> int:
        HOST.set(host)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            bench = make(Path(folder))
            for case in cases:
                follow_one(bench, case, follower)
        return 0

    return gpus.take_part(args, lead, follow)


def follow_one(bench, case, follower) -> None:
    """One case, beside the process that times it."""
    parts = bench.open(case).parts
    for network in (parts.transformer, parts.vae):
        bench.speed.randomise(network)
    follower.follow(parts.ready)
    parts.release("transformer", "vae")
    bench.backend.empty_cache()
