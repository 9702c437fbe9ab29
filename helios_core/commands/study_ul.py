"""`helios study ul`: the experiments of Unified Latents at the size of a toy, on photographs."""

from __future__ import annotations

import argparse
from pathlib import Path


def study(args: argparse.Namespace) -> int:
    """Trains, measures and writes the page. ValueError for what cannot be, before any work."""
    from ..study import ul
    from ..training.photos import find_photos

    files = find_photos(Path(args.data) if args.data else None)
    steps = args.steps or (4 if args.quick else ul.Sizes.steps)
    sizes = ul.Sizes(steps, args.seeds or (1 if args.quick else ul.Sizes.seeds))
    folder = Path(args.output or "study-ul")
    page = ul.study(files, folder, sizes, workers=args.threads or 2, tell=lambda text: print(text, flush=True))
    print(page)
    return 0
