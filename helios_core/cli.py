"""The `helios` command. Each subcommand's work is in commands/, imported when it runs.

Exit codes: 0 done, 2 for something wrong in what was asked (one line says what), 1 for what failed otherwise, such as a
full disk, 130 for Ctrl-C. No error of a library gets past commands/failures.py; HELIOS_DEBUG=1 shows its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from . import interrupts
from .checkpoint import WEIGHT_DTYPES
from .commands import Parser, failures, start
from .config import GUIDANCE, SOLVERS
from .devices import BACKENDS, OFFLOAD, TILING, VAE_DTYPES
from .join import boundary
from .lora import MODES as LORA_MODES

TRAINERS = {"tiny": "train", "ul": "train_ul", "ul-decoder": "train_ul_decoder", "ve": "train_ve"}
DESCRIPTION = "Helios text to video, chunk by chunk. Start with: helios generate --prompt 'a red circle moving left'"
MODEL_HELP = (
    "a checkpoint's folder or safetensors file, or the name of one that `helios doctor` lists (default: helios-tiny, "
    "which is built in)"
)
TRAIN_HELP = "tiny: what ships with the pack; ul: Unified Latents; ve: Variance Expansion"
TEXT_ENCODER_HELP = (
    "take the text encoder from this file (its name in models/text_encoders will do) or checkpoint folder; a model "
    "file without one needs it"
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = Parser(prog="helios", description=DESCRIPTION)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="a prompt becomes an MP4"))
    _add_run(commands.add_parser("run", help="run a ComfyUI workflow file, without ComfyUI"))
    _add_convert(commands.add_parser("convert", help="a checkpoint into another layout, quantised if asked for"))
    _add_inspect(commands.add_parser("inspect", help="what a file is, what it holds and lacks, and what runs it"))
    commands.add_parser("doctor", help="show backends, devices, memory, model folders and checkpoints")
    _add_bench(commands.add_parser("bench", help="how well a checkpoint of drawn shapes does what the prompt says"))
    _add_study(commands.add_parser("study", help="which variance, drift and boundary policies earn their place"))
    _add_probe(commands.add_parser("probe-vae", help="how much noise the latents of a VAE bear, on your pictures"))
    train = commands.add_parser("train", help="train a model: helios train tiny, ul, ve", add_help=False)
    train.add_argument("what", choices=list(TRAINERS), help=TRAIN_HELP)
    return root


def _add_generate(sub: argparse.ArgumentParser) -> None:
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="what the video shows")
    what.add_argument("--prompts-at", metavar="SCHEDULE", help=SCHEDULE_HELP)
    what.add_argument("--prompts-file", metavar="FILE", help=FILE_HELP)
    sub.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    sub.add_argument("-o", "--output", default="helios.mp4", metavar="MP4", help=OUTPUT_HELP)
    sub.add_argument("--negative", metavar="PROMPT", help="what it should not show; used with guidance above 1")
    sub.add_argument("--model", default="helios-tiny", help=MODEL_HELP)
    sub.add_argument("--text-encoder", metavar="FILE", help=TEXT_ENCODER_HELP)
    sub.add_argument("--vae", metavar="FILE", help="the same for the VAE, such as wan_2.1_vae.safetensors")
    sub.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH[@BLOCKS]]", help=LORA_HELP)
    sub.add_argument("--lora-mode", choices=LORA_MODES, default="auto", help=LORA_MODE_HELP)
    sub.add_argument("--lora-companion", metavar="FILE", help="the transformer_partial.pth of an official training")
    sub.add_argument("--width", type=int, help="pixels (default: the checkpoint's own)")
    sub.add_argument("--height", type=int, help="pixels (default: the checkpoint's own)")
    sub.add_argument("--frames", type=int, default=132, help="length; a chunk has 33 (default: %(default)s)")
    sub.add_argument("--length", choices=["exact", "published"], default="exact", help=LENGTH_HELP)
    sub.add_argument("--seed", type=int, help="the same seed gives the same video (default: 0)")
    sub.add_argument("--steps", help="per pyramid stage, such as 2,2,2 (default: the checkpoint's own)")
    sub.add_argument("--cfg", type=float, default=0.0, help="guidance scale; 0 is the checkpoint's own, 1 is none")
    sub.add_argument("--solver", choices=["auto", *SOLVERS], default="auto", help="default: the checkpoint's own")
    sub.add_argument("--guidance", choices=["auto", *GUIDANCE], default="auto", help="default: the checkpoint's own")
    sub.add_argument("--zero-steps", type=int, metavar="N", help="cfg_zero_star: first steps that are skipped (own: 2)")
    sub.add_argument("--shift-tokens", choices=["before", "after"], default="before", help=SHIFT_HELP)
    sub.add_argument("--shift-clamp", action="store_true", help="bound the exponential shift at 7, as in training")
    sub.add_argument("--anti-drift", metavar="POLICY[:STRENGTH]", help=DRIFT_HELP)
    sub.add_argument("--boundary", choices=boundary.POLICIES, default="none", help=BOUNDARY_HELP)
    sub.add_argument("--boundary-frames", type=int, default=boundary.FRAMES, metavar="N", help=BOUNDARY_FRAMES_HELP)
    sub.add_argument("--drop-first-frame", action="store_true", help="of every chunk but the first: 32 frames, not 33")
    sub.add_argument("--fps", type=float, help="frames per second (default: 24; with --video, the video's)")
    start.add_options(sub)
    _add_machine(sub)


def _add_probe(sub: argparse.ArgumentParser) -> None:
    from .commands.probe import add_options

    add_options(sub)


def _add_convert(sub: argparse.ArgumentParser) -> None:
    from .commands.convert import add_options

    add_options(sub)


def _add_inspect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", help="a file or folder, or the name of one in models/")


def _add_study(sub: argparse.ArgumentParser) -> None:
    from .commands.study import add_options

    add_options(sub, MODEL_HELP)


def _add_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("workflow", metavar="WORKFLOW.json", help="UI or API format; this pack's and a few core nodes")
    sub.add_argument("--set", dest="sets", action="append", default=[], metavar="NODE.INPUT=VALUE", help=SET_HELP)
    sub.add_argument("--input-dir", default=".", help="where Load Image and Load Video look (default: here)")
    sub.add_argument("--output-dir", default=".", help="where Save Video writes (default: here)")
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")


def _add_machine(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--backend", choices=BACKENDS, default="auto", help=BACKEND_HELP)
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")
    sub.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, default="auto", help=WEIGHT_DTYPE_HELP)
    sub.add_argument("--offload", choices=OFFLOAD, default="auto", help=OFFLOAD_HELP)
    sub.add_argument("--vae-dtype", choices=VAE_DTYPES, default="fp32", help=VAE_DTYPE_HELP)
    sub.add_argument("--vae-tiling", choices=TILING, default="auto", help=TILING_HELP)
    sub.add_argument("--no-prompt-cache", action="store_true", help=CACHE_HELP)


OVERWRITE_HELP = "replace --output if it is there already; with --prompts-file: make finished videos again"
OUTPUT_HELP = "file to write; if it is there already, the next free name, such as helios_2.mp4 (default: %(default)s)"
BACKEND_HELP = "what computes; auto: mlx on Apple silicon where it is installed, torch elsewhere"
WEIGHT_DTYPE_HELP = (
    "of the transformer; auto: as stored, but fp32 as bf16 where the GPU is fast at that. fp8_e4m3fn, int8 and int4 "
    "quantise as it loads, _g32 to _g128 with so many columns to a factor"
)
OFFLOAD_HELP = (
    "none: all stays on the device; blocks: as many of the transformer's blocks as fit do, the others stream from host "
    "memory; sequential: one part at a time; auto: the first of these that fits (default: %(default)s)"
)
VAE_DTYPE_HELP = "bf16 halves the memory that decoding takes, and on a GPU its time (default: %(default)s)"
TILING_HELP = "decode in tiles, which takes less memory but is not quite the same; auto: where it must be"
CACHE_HELP = "keep no prompt embeddings on disk; HELIOS_CACHE names the folder, or is off"
SCHEDULE_HELP = (
    "prompts from given chunks on, counted from 0: '0: a red circle; 4 (2): a blue square' blends over 2 chunks"
)
FILE_HELP = (
    "several videos with one load: a text file, a prompt per line, or a .csv with the header prompt and, if wanted, "
    "negative, seed, frames, output, image; the others are numbered after --output. Finished ones are left alone"
)
LENGTH_HELP = "exact: --frames; published: what the published pipelines make of it, 65 for 34 (default: %(default)s)"
SHIFT_HELP = "lay out a stage's steps by the size before or after its upsample (default: %(default)s)"
DRIFT_HELP = (
    "correct what the model remembers of a chunk whose colours or contrast drift: off (tells only), corrupt, "
    "renormalise or anchor, such as anchor:0.5; the video itself stays as sampled"
)
BOUNDARY_HELP = (
    "where chunks meet. none: nothing; match: draw brightness and contrast to the frame before, over a few frames, "
    "where they jump; crossfade: blend with that frame, which blurs what moves. Scene cuts stay (default: %(default)s)"
)
BOUNDARY_FRAMES_HELP = "how many frames of a chunk --boundary may change (default: %(default)s)"
LORA_HELP = (
    "a LoRA of Helios or Wan 2.1 14B: a file, or its name in models/loras; strength 1 if left out; BLOCKS: factors of "
    "blocks, such as 0-9=0.5,10-19=0,other=1 (other: outside of blocks; rest: not named). Repeatable."
)
LORA_MODE_HELP = "apply: beside the weights; merge: into copies of them; auto: apply (default: %(default)s)"
SETTING_HELP = (
    "a sampler setting, such as 'steps=2,2,2 solver=dmd cfg=1', or 'default', the checkpoint's own; repeatable"
)
SET_HELP = "change an input; NODE is a node's id, title or type, such as T5Encode.text='a red ball'. Repeatable."


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    interrupts.as_usual()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return interrupts.CODE
    except BrokenPipeError:  # whoever read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def entry() -> None:
    """The process of the `helios` command. After Ctrl-C it ends at once: CPython up to 3.11 may otherwise kill itself
    with the signal at the end, though the interrupt was dealt with."""
    code = main()
    if code == interrupts.CODE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(argv: list[str]) -> int:
    args, rest = parser().parse_known_args(argv)
    if rest and args.command != "train":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    with failures.caught(args.command) as found:
        return _dispatch(args, rest)
    return failures.tell(found[0], args.command)


def _add_bench(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", choices=["tiny"], help="tiny: a checkpoint trained on drawn shapes")
    sub.add_argument("--model", default="helios-tiny", help=MODEL_HELP)
    sub.add_argument("-o", "--output", default="bench-tiny", metavar="FOLDER", help="for the report")
    sub.add_argument("--prompts", type=int, default=32, help="held-out prompts (default: %(default)s)")
    sub.add_argument("--seeds", type=int, default=1, help="seeds per prompt (default: %(default)s)")
    sub.add_argument("--chunks", type=int, default=4, help="33 frames each; 44 are a minute (default: %(default)s)")
    sub.add_argument("--batch", type=int, default=16, help="videos that grow together (default: %(default)s)")
    sub.add_argument("--setting", action="append", metavar="TEXT", help=SETTING_HELP)
    sub.add_argument("--anti-drift", metavar="POLICY", help=DRIFT_HELP)
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")


def _dispatch(args: argparse.Namespace, rest: list[str]) -> int:
    if args.command == "generate":
        from .commands.generate import generate

        return generate(args)
    if args.command == "run":
        from .commands.run import run

        return run(args)
    if args.command == "convert":
        from .commands.convert import run as convert

        return convert(args)
    if args.command == "inspect":
        from .commands.inspect import inspect

        return inspect(args.file)
    if args.command == "doctor":
        from .commands.doctor import doctor

        return doctor()
    if args.command == "bench":
        from .commands.bench import bench

        return bench(args)
    if args.command == "probe-vae":
        from .commands.probe import probe

        return probe(args)
    if args.command == "study":
        from .commands.study import study

        return study(args)
    return import_module(f".commands.{TRAINERS[args.what]}", __package__).train(rest)


if __name__ == "__main__":
    entry()
