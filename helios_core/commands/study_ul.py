"""`helios study ul`: the experiments of Unified Latents at the size of a toy, on photographs."""

from __future__ import annotations

import argparse
from pathlib import Path


def study(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """Trains, measures and writes the page. ValueError for what cannot be, before any work."""
    from ..study import ul
    from ..training.photos import find_photos

    files = find_photos(Path(args.data) if args.data else None)
    steps = args.steps or (4 if args.quick else ul.Sizes.steps)
    sizes = ul.Sizes(steps, args.seeds or (1 if args.quick else ul.Sizes.seeds))
    tell = lambda text: print(text, flush=True)  # noqa: E731
    ul.study(files, folder, sizes, page=page, command=command, workers=args.threads or 2, tell=tell)
