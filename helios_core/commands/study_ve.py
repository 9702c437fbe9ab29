"""`helios study ve`: the experiments on Variance Expansion, on small autoencoders of photographs' patches."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from . import set_threads


def study(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """Trains what is not trained yet, and writes the page and the figures."""
    from ..study import ve_experiment, ve_patches
    from ..training.photos import find_photos

    sizes = ve_experiment.QUICK if args.quick else ve_experiment.Sizes()
    if args.steps:
        sizes = replace(sizes, steps=args.steps, flow_steps=args.steps)
    if args.seeds:
        sizes = replace(sizes, seeds=args.seeds)
    set_threads(args.threads)
    train, test = ve_patches.cut(find_photos(Path(args.data) if args.data else None), sizes.patches)
    folder.mkdir(parents=True, exist_ok=True)
    for line in ve_experiment.run(train, test, folder, sizes, page=page, command=command):
        print(line, flush=True)
