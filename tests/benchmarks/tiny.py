"""How often helios-tiny does what the prompt says, read from the pixels, and how long a video takes.

python tests/benchmarks/tiny.py --prompts 48 --chunks 4 --cfg 3 --steps 8,8,8
"""

import argparse
import time

import numpy as np
import torch
from einops import repeat
from helios_video.helios_core import load
from helios_video.helios_core.config import parse_steps
from helios_video.helios_core.history import History
from helios_video.helios_core.study.shapes import read_video
from helios_video.helios_core.training import shapes

ATTRIBUTES = ("colour", "shape", "motion", "background", "count")


def batches(scenes, size):
    return [scenes[i : i + size] for i in range(0, len(scenes), size)]


def render(helios, scenes, chunks, seed, **options):
    """Yields (chunk, uint8 frames [b f h w 3]) for the scenes' captions, all in one batch."""
    empty = helios.history(shapes.SIZE, shapes.SIZE)
    history = History(repeat(empty.window, "1 c t h w -> b c t h w", b=len(scenes)))
    positive, negative = helios.text([s.caption() for s in scenes]), helios.text([""] * len(scenes))
    for chunk in range(chunks):
        *_, last = helios.sample(history, positive, negative=negative, seed=seed, **options)
        history = history.append(last.latent)
        yield chunk, np.stack([helios.decode(z[None]) for z in last.latent])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="helios-tiny")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cfg", type=float, nargs="*", default=[0.0], help="0 is the checkpoint's own")
    parser.add_argument("--steps", default=None)
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    helios = load(args.model)
    rng = np.random.default_rng(10_000 + args.seed)
    scenes = [shapes.random_scene(rng, held_out=True) for _ in range(args.prompts)]
    steps = None if args.steps is None else parse_steps(args.steps, helios.config.schedule.stages)
    for cfg in args.cfg:
        right = np.zeros((args.chunks, len(ATTRIBUTES)))
        start = time.perf_counter()
        for i, part in enumerate(batches(scenes, args.batch)):
            options = {"cfg": cfg, "steps": steps, "solver": args.solver}
            for chunk, videos in render(helios, part, args.chunks, args.seed + i, **options):
                for scene, frames in zip(part, videos):
                    matches = read_video(frames).matches(scene)
                    right[chunk] += [matches[name] for name in ATTRIBUTES]
        seconds = time.perf_counter() - start
        print(f"cfg {cfg or helios.config.defaults.cfg:g}, {args.prompts} prompts, {seconds:.0f} s")
        for chunk, row in enumerate(right / len(scenes)):
            print(f"  chunk {chunk + 1}: " + ", ".join(f"{n} {100 * v:.0f} %" for n, v in zip(ATTRIBUTES, row)))


if __name__ == "__main__":
    main()
