"""`helios generate`: a prompt becomes an MP4, each finished chunk a playable file on the way there."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import load
from ..chunks import Clip, join
from ..config import parse_steps
from ..folders import TINY, find_model, search_folders
from ..video import check_writable, frame_rate
from . import set_threads


def generate(args: argparse.Namespace) -> int:
    """Prints the file's name on stdout, everything else on stderr. ValueError for bad arguments, before any work."""
    out = check_writable(args.output)
    if not args.prompt.strip():
        raise ValueError("--prompt is empty; say what the video should show")
    if args.frames < 1:
        raise ValueError(f"--frames must be at least 1, got {args.frames}")
    frame_rate(args.fps)
    set_threads(args.threads)
    model = load(_model(args.model), backend=args.backend)
    events = model.generate(args.prompt, **_settings(args, model.config))
    chunks = -(-args.frames // model.config.frames_per_chunk)
    _write(with_bars(events, chunks), out, args)
    print(out)
    return 0


def _model(name: str) -> Path | str:
    return Path(name) if name != TINY and Path(name).is_dir() else find_model(name, search_folders())


def _settings(args: argparse.Namespace, config) -> dict:
    """Keyword arguments of `Helios.generate`; what the user left open comes from the checkpoint."""
    defaults = config.defaults
    return {
        "negative": args.negative,
        "width": args.width if args.width is not None else defaults.width,
        "height": args.height if args.height is not None else defaults.height,
        "frames": args.frames,
        "seed": args.seed,
        "steps": parse_steps(args.steps, len(defaults.steps)) if args.steps is not None else None,
        "cfg": args.cfg,
        "solver": args.solver,
    }


def _write(events: Iterable, out: Path, args: argparse.Namespace) -> None:
    """Chunks to files beside the output, then one file; what is finished stays playable whatever stops the run."""
    folder, clip = _new_folder(out), None
    try:
        for event in events:
            if is_chunk(event):
                clip = (clip or Clip.new(folder, args.fps)).append(np.asarray(event.frames))
        if clip is None:
            raise ValueError("the model gave no chunk")
        used = {name: value for name, value in vars(args).items() if name not in ("command", "output", "threads")}
        join(clip, out, {"helios": used}, num_frames=min(args.frames, clip.num_frames))
        shutil.rmtree(folder)
    finally:
        if clip is not None and folder.is_dir():
            print(f"{clip.num_frames} finished frames are in {folder}, a playable file per chunk", file=sys.stderr)


def _new_folder(out: Path) -> Path:
    """out.mp4 -> out_chunks, or out_chunks_2 ... where an earlier run was stopped."""
    names = (out.with_name(f"{out.stem}_chunks{f'_{i}' if i > 1 else ''}") for i in range(1, 10_000))
    return next(folder for folder in names if not folder.exists())


def is_chunk(event) -> bool:
    """A pipeline's events are the sampler's steps, and finished chunks, which have frames."""
    return hasattr(event, "frames")


def with_bars(events: Iterable, chunks: int) -> Iterator:
    """The same events, with one progress bar per chunk on stderr: its steps, then its frames."""
    bar = None
    for event in events:
        if is_chunk(event):
            bar.set_postfix_str(f"{len(event.frames)} frames")
            bar.close()
            bar = None
        else:
            bar = bar or tqdm(total=event.total, desc=f"chunk {event.chunk + 1}/{chunks}", unit="step")
            bar.update(event.index + 1 - bar.n)
        yield event
