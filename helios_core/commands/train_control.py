"""`helios train control`: a small adapter by which a model follows a control video."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import load
from ..checkpoint import WEIGHT_DTYPES, find_checkpoint, find_file
from ..control import POLICIES
from ..devices import OFFLOAD
from ..disk import Store
from ..pipeline import TINY
from . import Terminal
from .settings import FromFile, fingerprint, not_in_vain, note_output

DRAWN = "drawn"
EXTRACTORS = ("edges", "blobs", "masks", "tracks")
DATA_HELP = (
    "clips of 33 frames or more with captions: a .txt beside each, or one .csv or .jsonl with the columns file and "
    "caption; or drawn: objects of helios-tiny's vocabulary on random paths, with --extract tracks or masks"
)
CONTROLS_HELP = "their control videos, of the same names and lengths; without it they are made by --extract"
DTYPE_HELP = "of the frozen base: int4 and int8 take the least memory (as stored; small ones fp32)"
OFFLOAD_HELP = "blocks: the base's blocks stay in the host's memory (auto: where it does not fit)"
HELPS = {
    "policy": f"how control latents go down the pyramid: {', '.join(POLICIES[1:])}",
    "extract": f"how control videos are made out of the clips: {', '.join(EXTRACTORS)}",
    "rank": "of the LoRA beside the embedding; 0: none",
    "batch": "chunks in a step",
    "steps": "optimiser steps",
    "lr": "learning rate",
    "drop": "share of the chunks that go without control, so that the strength may be lowered",
    "drop_caption": "share that go without caption, for checkpoints with guidance",
    "pixels": "of a frame, at most; each clip has the nearest shape; 0: the checkpoint's own",
    "chunks": "of a clip, at most",
    "shards": "drawn: so many times 20 clips of 4 chunks",
    "seed": "of all draws",
    "save_every": "steps between checkpoints; what was trained since the last is lost when the run is killed",
    "log_every": "steps between lines of the log",
}
ABOUT = (
    "Trains a patch embedding of control latents, and a LoRA, on a frozen checkpoint; goes on where a run was stopped "
    "or killed. More: web/docs/control.md."
)


@dataclass(frozen=True)
class ControlSettings(FromFile):
    """How an adapter is trained; see HELPS. The defaults are the recipe of the one that ships."""

    policy: str = "content"
    extract: str = "tracks"
    rank: int = 24
    batch: int = 8
    steps: int = 640
    lr: float = 2e-3
    drop: float = 0.0
    drop_caption: float = 0.0
    pixels: int = 0
    chunks: int = 4
    shards: int = 12
    seed: int = 0
    save_every: int = 50
    log_every: int = 10


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    about = {"folder": "control-run", "output": "control.safetensors", "helps": HELPS}
    made = ControlSettings.parser("helios train control", ABOUT, **about)
    made.add_argument("--data", type=Path, required=True, metavar="FOLDER", help=DATA_HELP)
    made.add_argument("--controls", type=Path, metavar="FOLDER", help=CONTROLS_HELP)
    made.add_argument("--model", default="helios-tiny", metavar="NAME", help="the checkpoint (helios-tiny)")
    made.add_argument("--text-encoder", metavar="FILE", help="take that part from this file or checkpoint folder")
    made.add_argument("--vae", metavar="FILE", help="the same for the VAE")
    made.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, default="auto", help=DTYPE_HELP)
    made.add_argument("--offload", choices=OFFLOAD, default="auto", help=OFFLOAD_HELP)
    return made


def train(argv: list[str]) -> int:
    """Trains and writes the adapter. ValueError for what cannot be, before any encoding."""
    args = parser().parse_args(argv)
    helios = open_base(args)
    drawn = str(args.data) == DRAWN and not args.data.is_dir()
    check(args, drawn)
    files = helios.checkpoint.sources["transformer"].files
    of = {"data": DRAWN if drawn else str(args.data.resolve()), "model": fingerprint(files)}
    of |= {"controls": "" if args.controls is None else str(args.controls.resolve())}
    with not_in_vain(args.folder):
        found = None if drawn else find(args, helios)
        settings = ControlSettings.begin(args, ["control.pt"], lambda _: of)
        from ..training import control

        what = "own" if args.controls is not None else settings.extract
        if settings.policy not in POLICIES[1:]:
            raise ValueError(f"--policy {settings.policy!r}: wanted one of {', '.join(POLICIES[1:])}")
        names = ("policy", "rank", "batch", "steps", "lr", "drop", "drop_caption", "shards", "seed", "save_every")
        how = {name: getattr(settings, name) for name in (*names, "log_every")}
        plan = control.ControlPlan(what={"tracks": "track", "masks": "mask"}.get(what, what) if drawn else what, **how)
        pairs = None if drawn else encode(args, helios, found, settings, what)
        control.run(helios, plan, args.folder, args.output, pairs)
    note_output(args.folder, args.output)
    print(args.output)
    return 0


def open_base(args: argparse.Namespace):
    """The checkpoint to train on; small ones in float32 unless told otherwise."""
    from ..training.control import is_small

    named = {"text_encoder": find_file("text_encoders", args.text_encoder), "vae": find_file("vae", args.vae)}
    named |= {"offload": args.offload, "backend": "torch", "vae_dtype": "fp32", "host": Terminal()}
    helios = load(find_checkpoint(args.model), weight_dtype=args.weight_dtype, **named)
    if args.weight_dtype == "auto" and is_small(helios):
        return load(find_checkpoint(args.model), weight_dtype="fp32", **named)
    return helios


def check(args: argparse.Namespace, drawn: bool) -> None:
    """ValueError for options that exclude each other or are none."""
    extract = args.extract or ControlSettings.extract
    if extract not in EXTRACTORS:
        raise ValueError(f"--extract {extract!r}: wanted one of {', '.join(EXTRACTORS)}")
    if args.controls is not None and (drawn or args.extract is not None):
        raise ValueError("--controls brings the control videos; leave out --extract, and drawn has its own")
    if drawn and (extract not in ("tracks", "masks") or load(args.model).checkpoint.path != TINY):
        raise ValueError("--data drawn is for helios-tiny, with --extract tracks or masks")


def find(args: argparse.Namespace, helios) -> list:
    """The pairs of the folder."""
    from ..training import control

    return control.find_pairs(args.data, args.controls, helios.config.frames_per_chunk)


def encode(args: argparse.Namespace, helios, found: list, settings: ControlSettings, what: str) -> list:
    """Their latents, kept in the run's folder; what breaks off is named and left out. ValueError where all do."""
    from ..training import control

    own = helios.config.defaults
    store = Store(args.folder / "latents", limit=40_000_000_000)
    encoder = control.PairEncoder(helios, settings.pixels or own.width * own.height, settings.chunks, store, what)
    made = []
    for i, one in enumerate(found):
        try:
            made.append(encoder.pair(one))
        except (OSError, ValueError) as error:
            print(f"skipped {one.clip.file.path}: {error}", file=sys.stderr)
        print(f"encoded {i + 1} of {len(found)}", file=sys.stderr)
    if not made:
        raise ValueError(
            f"none of the {len(found)} clips can be read to the end; the first is {found[0].clip.file.path}"
        )
    return made
