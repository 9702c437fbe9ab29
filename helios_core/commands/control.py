"""The options by which `helios generate` takes a control video."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..config import check_number
from ..control import POLICIES, TINY_ADAPTER, encode_clip, find_adapter, parse_chunks
from ..join import Boundary
from ..media import iter_frames, probe
from ..with_control import with_control

CHUNK = 33  # frames
CLIP_HELP = "a video beside the noise, which says what is where; 33 frames or more; another size is cropped and resized"
ADAPTER_HELP = (
    "the adapter that reads it: a file of helios train control, or its name in models/controlnet (%(default)s, for "
    "helios-tiny: a white disc where the object is, on black)"
)
STRENGTH_HELP = "1 as trained, 0 nothing (%(default)s)"
POLICY_HELP = "how its latents go down the pyramid (%(default)s)"
CHUNKS_HELP = "chunks that are controlled, from 0: 2-5, 2- or 2; the clip begins with the first (as long as it goes)"


def add_options(group: argparse._ArgumentGroup) -> None:
    """All of them."""
    group.add_argument("--control", metavar="CLIP", help=CLIP_HELP)
    group.add_argument("--control-adapter", metavar="FILE", default=TINY_ADAPTER, help=ADAPTER_HELP)
    group.add_argument("--control-strength", type=float, metavar="X", default=1.0, help=STRENGTH_HELP)
    group.add_argument("--control-policy", choices=POLICIES, default=POLICIES[0], help=POLICY_HELP)
    group.add_argument("--control-chunks", metavar="FIRST-LAST", default="", help=CHUNKS_HELP)


def check(args: argparse.Namespace) -> None:
    """ValueError for what needs no model to be wrong."""
    parse_chunks(args.control_chunks)
    check_number("--control-strength", args.control_strength, 10.0)
    if args.control is None:
        left = {"adapter": TINY_ADAPTER, "strength": 1.0, "policy": POLICIES[0], "chunks": ""}
        if said := [name for name, value in left.items() if getattr(args, f"control_{name}") != value]:
            raise ValueError(f"--control-{said[0]} says how a --control clip is used; name one")
        return
    if not Path(args.control).is_file():
        raise ValueError(f"no file at {args.control}")
    find_adapter(args.control_adapter)
    if args.gpus is not None or "WORLD_SIZE" in os.environ:
        raise ValueError("--control runs on one GPU so far; leave out --gpus, or the control")
    if (frames := probe(args.control).frames) < CHUNK:
        raise ValueError(f"--control {args.control}: {frames} frames; wanted at least {CHUNK}, one chunk")


def add_control(model, args: argparse.Namespace):
    """The model under the clip's control, if there is one; encodes no more of it than the video is long."""
    if args.control is None:
        return model
    (first, last), own = parse_chunks(args.control_chunks), model.config.defaults
    chunks = Boundary(drop_first_frame=args.drop_first_frame).chunks(args.frames, CHUNK)
    most = None if args.resume is not None or args.prompts_file is not None else max(1, chunks - first)
    size = args.width or own.width, args.height or own.height
    tell = lambda text: print(text, file=sys.stderr)  # noqa: E731
    latents = encode_clip(model, iter_frames(args.control), *size, most=most, tell=tell)
    how = {"strength": args.control_strength, "policy": args.control_policy, "first": first, "last": last}
    return with_control(model, args.control_adapter, latents, **how)


def tell_idle(model, begin: int, end: int) -> None:
    """Says on stderr of each control that it does nothing in a video of the chunks `begin` to `end` - 1."""
    for control in model.controls:
        if control.strength and not any(control.acts(chunk) for chunk in range(begin, end)):
            chunks = f"of this video, {begin} to {end - 1}" if end - begin > 1 else f"of this video, {begin}"
            print(
                f"control: it acts in no chunk {chunks} ({control.report}); --control-chunks {begin}- has the clip "
                "begin where the video does",
                file=sys.stderr,
            )
