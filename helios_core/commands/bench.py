"""`helios bench tiny`: how well a checkpoint of drawn shapes does what the prompt says, for one or more settings."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from .. import load
from ..config import check_whole, limits
from ..disk import check_folder, check_name
from ..history import parse_policy
from ..pipeline import Helios
from ..steps import parse_steps
from . import Terminal, set_threads
from .actors import check_options as check_actors
from .bench_actors import recorded, spread_out
from .bench_speed import bench_speed
from .outputs import check_report

NUMBERS = {"cfg": float, "zero_steps": int}
WORDS = ("solver", "shift_tokens", "guidance")
SWITCHES = ("boost_first_chunk", "shift_clamp")


def parse_setting(text: str, stages: int) -> dict:
    """ "steps=2,2,2 cfg=1" -> options of `Helios.sample`. ValueError names what cannot be read."""
    options = {}
    for part in () if text.strip() == "default" else text.split():
        name, _, value = part.partition("=")
        if name == "steps":
            options[name] = _steps(text, value, stages)
        elif name in NUMBERS:
            options[name] = _number(text, part, NUMBERS[name])
        elif name in WORDS:
            options[name] = value.replace("_", " ") if name == "shift_tokens" else value
        elif name in SWITCHES and value in ("true", "false"):
            options[name] = value == "true"
        else:
            wanted = ", ".join(["steps", *NUMBERS, *WORDS, *(f"{s}=true|false" for s in SWITCHES)])
            raise ValueError(f"--setting {part!r}: wanted name=value with one of {wanted}")
    return options


def _steps(text: str, value: str, stages: int) -> tuple[int, ...]:
    try:
        return parse_steps(value, stages)
    except ValueError as error:
        raise ValueError(f"--setting {text!r}: {error}") from None


def _number(text: str, part: str, kind: type) -> float | int:
    try:
        return kind(part.partition("=")[2])
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"--setting {text!r}: {part!r}: wanted {wanted} after the =") from None


def bench(args: argparse.Namespace) -> int:
    """Speed, or how well a checkpoint does: renders, prints a table, writes the report. ValueError for settings that
    cannot be, before any rendering."""
    if args.what == "speed":
        return bench_speed(args)
    from ..drawn.bench import FILES, held_out_scenes, summarise, write

    for name, most in (("prompts", 10_000), ("seeds", 10_000), ("chunks", limits.CHUNKS), ("batch", 10_000)):
        check_whole(f"--{name}", getattr(args, name), most)
    check_actors(args)
    drift = None if args.anti_drift is None else parse_policy(args.anti_drift)
    set_threads(args.threads)
    check_name(Path(args.output).name or "bench-tiny")
    folder = check_folder(args.output)
    check_report(folder, FILES)
    helios = load(args.model, host=Terminal())
    names = args.setting or ["default"]
    settings = {name: parse_setting(name, helios.config.schedule.stages) for name in names}
    for name, options in settings.items():
        try:
            helios.plan(helios.history(64, 64), **options)
        except ValueError as error:
            raise ValueError(f"--setting {name!r}: {error}") from error
    scenes, results = held_out_scenes(args.prompts), {}
    with growing(args) as grow:
        for name, options in settings.items():
            model = recorded(helios, **options)
            videos, fps = grow(name, model, scenes, args, drift=drift, **options)
            summary = summarise(videos, fps)
            results[name] = (videos, summary)
            show(name, summary)
            write(folder, results)
    print(args.output)
    return 0


def growing(args: argparse.Namespace):
    """`grown`, or the same by the actors of --ray, inside a with block."""
    if args.ray is None:
        return nullcontext(grown)
    return spread_out(args)


def grown(name: str, model: Helios, scenes: list, args: argparse.Namespace, **how) -> tuple[list, float]:
    """The measured videos of a setting and their frames per second, with a bar on stderr meanwhile."""
    from tqdm import tqdm

    from ..drawn.bench import grow

    total = args.seeds * -(-len(scenes) // args.batch) * args.chunks
    with tqdm(total=total, desc=name, unit="chunk", disable=None) as bar:
        for found in grow(model, scenes, range(args.seeds), args.chunks, batch=args.batch, **how):  # noqa: B007
            bar.update(min(1, total - bar.n))
    return found.videos, found.fps


def show(name: str, summary: dict) -> None:
    """First, fourth and last chunk of a setting, in percent."""
    from ..drawn.bench import ATTRIBUTES

    chunks = len(summary["colour"])
    print(f"{name}: merit {100 * summary['merit']:.1f} %, {summary['frames per second']:.1f} frames per second")
    for k in sorted({0, min(3, chunks - 1), chunks - 1}):
        right = ", ".join(f"{a} {100 * summary[a][k]:.0f} %" for a in ATTRIBUTES)
        print(f"  chunk {k + 1}: {right}, colour error {summary['colour_error'][k]:.3f}, size {summary['size'][k]:.2f}")
    for kind, found in summary.get("joints", {}).items():
        print(f"  joints, {kind}: {found['jump']:.4f}, inside the chunks {found['inside']:.4f}", flush=True)
