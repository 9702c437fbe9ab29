"""`helios train lora`: a checkpoint learns from a folder of clips or pictures with captions."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..checkpoint import WEIGHT_DTYPES, find_checkpoint, find_file
from ..config import ModelConfig, check_number, check_whole
from ..devices import OFFLOAD
from ..disk import fingerprint as states
from ..training.lora import LoraOptions
from . import Terminal, set_threads
from .settings import FromFile, absolute, fingerprint, not_in_vain, note_output


@dataclass(frozen=True)
class LoraSettings(LoraOptions, FromFile):
    """How the LoRA is trained; see HELPS."""

    free: ClassVar[tuple[str, ...]] = ("save_every", "log_every", "sample_every", "sample_prompts")


HELPS = {
    "rank": "of the pairs: more learns more, and makes a larger file",
    "alpha": "the pairs count alpha / rank; 0 is the rank",
    "targets": "layers that learn: self, cross (attention), feed (feed-forward), text (the prompt's embedding), or "
    "parts of layers' names",
    "blocks": "only of these blocks, such as 0-9,20; empty: all",
    "steps": "optimiser steps; 0: 1000, of small models 600",
    "optimiser": "of the pairs in blocks: adamw, muon; auto: muon for small models",
    "lr": "learning rate; 0: 1e-4, of small models 2e-3, by Muon four times as much",
    "decay": "the share of the steps, at the end, over which the learning rate falls",
    "batch": "samples in a step of each process; 0: 1, of small models 16",
    "stages": "of the pyramid in a step: all, or one at a time, which takes less memory; auto: all of small models",
    "shift": "1: times by the schedule's dynamic shift; the official training of Base and Mid leaves it off",
    "drop_caption": "share of the samples without a prompt, for guidance",
    "ema": "of the weights that are kept",
    "clip": "largest norm of all gradients together",
    "precision": "bf16: autocast; fp32",
    "checkpointing": "on: blocks are computed again on the way back, which saves memory; auto: not of small models",
    "pixels": "of a frame at most, width times height; 0: the checkpoint's own",
    "chunks": "of a clip at most, 33 frames each",
    "few_steps": "of a checkpoint that takes few steps: teach those too, or off: flow alone, which spoils them; auto",
    "first_steps": "optimiser steps of a flow model of the coarsest stage, trained before such a checkpoint; 0: 300",
    "lessons": "rounds of 16 that this makes; 0: 10",
    "keep": "a file of prompts, a line each, whose videos shall stay as they are",
    "seed": "of all draws",
    "save_every": "steps between checkpoints; what was trained since the last is lost when the run is killed",
    "log_every": "steps between lines of the log",
    "sample_every": "steps between sample sheets in the folder; 0: none",
    "sample_prompts": "of the sheets, with | between; empty: the first captions",
}
ABOUT = (
    "Trains a LoRA on clips or pictures with captions (.txt beside each, or one .csv or .jsonl with the columns file "
    "and caption); goes on where a run was stopped or killed. Under torchrun several GPUs train together: torchrun "
    "--nproc-per-node 4 -m helios_video.helios_core.cli train lora"
)


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = LoraSettings.parser("helios train lora", ABOUT, folder="lora-run", output=None, helps=HELPS)
    made.add_argument("--data", type=Path, metavar="FOLDER", help="clips or pictures with captions, in any depth")
    made.add_argument("--model", default="helios-tiny", metavar="NAME", help="checkpoint to train (helios-tiny)")
    made.add_argument("--text-encoder", metavar="FILE", help="take that part from this file or checkpoint folder")
    made.add_argument("--vae", metavar="FILE", help="the same for the VAE")
    made.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, default="auto", help=DTYPE_HELP)
    made.add_argument("--offload", choices=OFFLOAD, default="auto", help=OFFLOAD_HELP)
    made.add_argument("--full", action="store_true", help="all weights of a small checkpoint; -o is a new folder")
    made.add_argument(
        "--estimate",
        action="store_true",
        help="say what memory a step takes, counted, and end; --model 14B: the published one, without its files",
    )
    return made


DTYPE_HELP = "of the frozen base: int4 and int8 take the least memory (as stored)"
OFFLOAD_HELP = "blocks: the base's blocks stay in the host's memory (auto: where it does not fit)"
PUBLISHED = "14B"  # of --model, with --estimate
OUTPUTS = ("lora.safetensors", "helios-trained")  # by default, of pairs and of --full


def train(argv: list[str]) -> int:
    """Trains and writes. ValueError for what cannot be, before any training."""
    args = parser().parse_args(argv)
    args.output = args.output or Path(OUTPUTS[args.full])
    check(args)
    settings = LoraSettings.read(args.config, **LoraSettings.given(args))
    if args.estimate:
        print(estimate(settings, args))
        return 0
    helios = open_base(args)
    from ..training.lora import run

    files = run.find_files(helios, args.data, run.settle(settings, helios))
    of = {"data": absolute(args.data), "files": _digest(files), "model": fingerprint(_files(helios))}
    of |= {"weights": f"{args.weight_dtype}{' all' * args.full}"}
    with not_in_vain(args.folder):
        settings = LoraSettings.begin(args, ["*.pt", "lessons/*.safetensors"], lambda _: of)
        run.run(settings, helios, args.data, args.folder, args.output, watch=Told(), full=args.full)
    note_output(args.folder, args.output)
    print(args.output)
    return 0


class Told:
    """Says how far a training is; the bar of `fit` says what time is left."""

    def part(self, name: str, total: int) -> None:
        """A part begins."""
        self.name, self.total = name, total
        print(f"{name}: {total} {'files' if name == 'encode' else 'steps'}", file=sys.stderr, flush=True)

    def step(self, done: int, total: int) -> None:
        """A file is encoded; steps have a bar of their own."""
        if self.name == "encode" and (done == total or done % 10 == 0):
            print(f"encoded {done} of {total}", file=sys.stderr, flush=True)

    def sample(self, file: Path) -> None:
        """A sheet was drawn."""
        print(f"samples: {file}", file=sys.stderr, flush=True)


class Placed(Terminal):
    """Computes on the device that was asked for."""

    def __init__(self, device):
        self.place_of_all = device

    def device(self, own):
        """The one asked for."""
        return self.place_of_all


def check(args: argparse.Namespace) -> None:
    """ValueError for what needs no model to be wrong."""
    if args.data is None and not args.estimate:
        raise ValueError("--data: name a folder of clips or pictures with captions")
    if not args.full and args.output.suffix != ".safetensors":
        raise ValueError(f"-o {args.output}: a LoRA is a .safetensors file")
    for name, most in (("rank", 4096), ("chunks", 10_000), ("lessons", 10_000)):
        if (value := getattr(args, name)) is not None:
            check_whole(f"--{name}", value, most)
    for name in ("drop_caption", "ema"):
        if (value := getattr(args, name)) is not None:
            check_number(f"--{name.replace('_', '-')}", value, 1.0)


def open_base(args: argparse.Namespace):
    """The checkpoint, on torch, as a training wants it: nothing compiled, attention that has gradients."""
    from .. import load

    set_threads(args.threads)
    parts = {"text_encoder": find_file("text_encoders", args.text_encoder), "vae": find_file("vae", args.vae)}
    choices = {"weight_dtype": args.weight_dtype, "offload": args.offload, "compile": "off", "attention": "sdpa"}
    host = Terminal() if args.estimate else Placed(_place(args.device))
    return load(find_checkpoint(args.model), backend="torch", host=host, **parts, **choices)


def _place(device: str):
    from ..training import join

    return join(device)


def estimate(settings: LoraSettings, args: argparse.Namespace) -> str:
    """What a step takes of a GPU's memory, in words; of the published model without its files, too."""
    from ..training.lora import count, run

    config, batch, checkpointing = ModelConfig(), settings.batch or 1, settings.checkpointing != "off"
    if args.model != PUBLISHED:
        helios = open_base(args)
        settings, config = run.settle(settings, helios), helios.config
        batch, checkpointing = settings.batch, settings.checkpointing == "on"
    own = config.defaults
    needs = count(
        config,
        width=own.width,
        height=own.height,
        batch=batch,
        rank=settings.rank,
        targets=settings.targets,
        weight_dtype="bf16" if args.weight_dtype == "auto" else args.weight_dtype,
        streamed=args.offload == "blocks",
        checkpointing=checkpointing,
    )
    return f"{needs.describe()}; at {own.width}x{own.height}, batch {batch}, rank {settings.rank}"


def _files(helios) -> list[Path]:
    return list(helios.checkpoint.sources["transformer"].files)


def _digest(files) -> str:
    """Of the folder's files and what is said of them: a training belongs to them."""
    about = [(one.file.path.name, one.file.captions, states(one.file.path)) for one in files]
    return hashlib.sha256(repr(about).encode()).hexdigest()[:12]
