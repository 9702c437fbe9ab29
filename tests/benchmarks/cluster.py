"""Videos a minute of two actors with a thread each, against one: `python tests/benchmarks/cluster.py`.

A Ray of its own on this machine, helios-tiny, 12 videos of 66 frames; models are loaded before the clock starts. Rounds
alternate, since other programs run too; the ratio is of the medians.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS, VIDEOS = 3, 12
LINE = ["--steps", "1,1,1", "--frames", "66", "--threads", "1", "--ray", "--overwrite"]


def main() -> None:
    from helios_video.helios_core.cli import parser
    from helios_video.helios_core.commands import actors, renderer

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    os.environ["HELIOS_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as folder, actors.cluster(actors.LOCAL, 3) as ray:
        args = parser().parse_args(["generate", "--prompts-file", "none", *LINE])
        args.prompt, args.seed, args.line, args.fps = "a red circle", 0, [], 24
        own = [argparse.Namespace(**{**vars(args), "output": str(Path(folder, f"{i}.mp4"))}) for i in range(VIDEOS)]
        films = [renderer.FilmTask(each, None) for each in own]
        takes, _ = actors.needs(ray, 1)
        pools = {n: actors.Pool(ray, renderer.Renderer, (args, folder), n, takes) for n in (1, 2)}
        for n, pool in pools.items():
            while len(pool.free) < n:
                _ = [*pool.run(films[: n + 1])]
        times = {n: [] for n in pools}
        for _ in range(rounds):
            for n, pool in pools.items():
                began = time.monotonic()
                _ = [*pool.run(films)]
                times[n].append(time.monotonic() - began)
    one, two = (median(times[n]) for n in (1, 2))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    rates = f"{60 * VIDEOS / one:.0f} and {60 * VIDEOS / two:.0f} videos a minute"
    print(
        f"one actor {one:.1f} s, two {two:.1f} s for {VIDEOS} videos: {rates}, ratio {one / two:.2f}; load {load:.1f}"
    )


if __name__ == "__main__":
    main()
