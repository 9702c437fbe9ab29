"""The `helios` command. Each subcommand's work is in commands/, imported when it runs.

Exit codes: 0 done, 2 for something wrong in what was asked (one line says what), 1 for what failed otherwise, such as a
full disk, 130 for Ctrl-C, 143 for SIGTERM. No error of a library gets past commands/failures.py; HELIOS_DEBUG=1 shows
its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from . import __version__, interrupts
from .commands import Parser, actors, failures, messages, osc
from .commands.options import DRIFT_HELP, MODEL_HELP, THREADS_HELP, add_generate

TRAINERS = {
    **{"tiny": "train", "lora": "train_lora", "ul": "train_ul", "ul-decoder": "train_ul_decoder", "ve": "train_ve"},
    "control": "train_control",
}
WORK = {  # command -> the module in commands/, and its function of the arguments
    "generate": ("generate", "generate"),
    "retake": ("retake", "retake"),
    "takes": ("retake", "takes"),
    "osc": ("osc", "osc"),
    "download": ("download", "download"),
    "run": ("run", "run"),
    "convert": ("convert", "run"),
    "inspect": ("inspect", "inspect"),
    "doctor": ("doctor", "doctor"),
    "bench": ("bench", "bench"),
    "probe-vae": ("probe", "probe"),
    "study": ("study", "study"),
}
DESCRIPTION = "Helios text to video, chunk by chunk. Start with: helios generate --prompt 'a red circle moving left'"
TRAIN_HELP = (
    "lora: teach a checkpoint your own; control: have it follow a second video; tiny: what ships with the pack; "
    "ul: Unified Latents; ul-decoder: its decoder; ve: Variance Expansion"
)
SPEED = "Random weights of the published sizes, measured for ten minutes: a table to paste. On a CPU a small model."
TRAIN_ABOUT = "Trains a model. Each has options of its own: helios train tiny --help, and so on."


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = Parser(prog="helios", description=DESCRIPTION)
    root.add_argument("--version", action="version", version=f"helios {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_generate(commands.add_parser("generate", help="a prompt becomes an MP4"))
    _add_retake(commands.add_parser("retake", help="make a video again from a chunk on, with another seed or prompt"))
    takes = commands.add_parser("takes", help="list a video's takes, and what each has that is different")
    takes.add_argument("video", metavar="VIDEO", help="any of them")
    osc.add_options(commands.add_parser("osc", help="direct a run of ComfyUI's by Open Sound Control"))
    _add_download(commands.add_parser("download", help="fetch a published checkpoint, or go on fetching it"))
    _add_run(commands.add_parser("run", help="run a ComfyUI workflow file, without ComfyUI"))
    resume = commands.add_parser("resume", help="go on with a generate or run that was stopped or killed")
    resume.add_argument("folder", metavar="FOLDER", help="with the finished chunks, such as out_chunks")
    _add_convert(commands.add_parser("convert", help="a checkpoint into another layout, quantised if asked for"))
    _add_inspect(commands.add_parser("inspect", help="what a file is, what it holds and lacks, and what runs it"))
    _add_doctor(commands.add_parser("doctor", help="what this machine has and finds, or what a card would do"))
    _add_bench(
        commands.add_parser("bench", help="how fast this machine is, or how well a checkpoint of drawn shapes does")
    )
    _add_study(commands.add_parser("study", help="which variance, drift and boundary policies earn their place"))
    _add_probe(commands.add_parser("probe-vae", help="how much noise the latents of a VAE bear, on your pictures"))
    train = commands.add_parser(
        "train", help="train a model: helios train lora, tiny, ul, ve", description=TRAIN_ABOUT, add_help=False
    )
    train.add_argument("what", nargs="?", choices=list(TRAINERS), help=TRAIN_HELP)
    return root


def _add_probe(sub: argparse.ArgumentParser) -> None:
    from .commands.probe import add_options

    add_options(sub)


def _add_retake(sub: argparse.ArgumentParser) -> None:
    from .commands.retake import add_options

    add_options(sub)


def _add_download(sub: argparse.ArgumentParser) -> None:
    from .commands.download import add_options

    add_options(sub)


def _add_convert(sub: argparse.ArgumentParser) -> None:
    from .commands.convert import add_options

    add_options(sub)


def _add_inspect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", help="a file or folder, or the name of one in models/")


def _add_doctor(sub: argparse.ArgumentParser) -> None:
    sub.description = "Shows backends, devices, memory, the folders searched for models, and what was found there."
    sub.add_argument("--card", type=float, metavar="GB", help="instead: how the 14B model would run on such a card")


def _add_study(sub: argparse.ArgumentParser) -> None:
    from .commands.study import add_options

    add_options(sub, MODEL_HELP)


def _add_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("workflow", metavar="WORKFLOW.json", help="UI or API format; this pack's and a few core nodes")
    sub.add_argument("--set", dest="sets", action="append", default=[], metavar="NODE.INPUT=VALUE", help=SET_HELP)
    sub.add_argument("--input-dir", default=".", help="where Load Image and Load Video look (default: here)")
    sub.add_argument("--output-dir", default=".", help="where Save Video writes (default: here)")
    sub.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)


SETTING_HELP = (
    "a sampler setting, such as 'steps=2,2,2 solver=dmd cfg=1', or 'default', the checkpoint's own; repeatable"
)
SET_HELP = "change an input; NODE is a node's id, title or type, such as T5Encode.text='a red ball'. Repeatable."


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    interrupts.as_usual()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return interrupts.TERMINATED if isinstance(stop, interrupts.Terminated) else interrupts.CODE
    except BrokenPipeError:  # whoever read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def entry() -> None:
    """The process of the `helios` command. After Ctrl-C it ends at once: CPython up to 3.11 may otherwise kill itself
    with the signal at the end, though the interrupt was dealt with."""
    interrupts.hear_terminate()
    code = main()
    if code in (interrupts.CODE, interrupts.TERMINATED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(argv: list[str]) -> int:
    commands = parser()
    args, rest = commands.parse_known_args(argv)
    if args.command == "train" and args.what is None:
        return _train_help(rest, commands.named("train"))
    if rest and args.command != "train":
        commands.named(args.command).error(f"unrecognized arguments: {' '.join(rest)}")
    args.line = argv
    with messages(), failures.caught(args.command) as found:
        return _dispatch(args, rest)
    return failures.tell(found[0], args.command)


def _train_help(rest: list[str], train: Parser) -> int:
    """`helios train` without what to train: its help if that is asked for, else an error."""
    if not {"-h", "--help"} & set(rest):
        train.error(f"say what to train: {', '.join(TRAINERS)}")
    train.print_help()
    return 0


def _add_bench(sub: argparse.ArgumentParser) -> None:
    from .commands.bench_speed import add_options

    kinds = sub.add_subparsers(dest="what", required=True, metavar="WHAT")
    add_options(
        kinds.add_parser("speed", help="how fast this machine makes video; needs no weights", description=SPEED)
    )
    sub = kinds.add_parser("tiny", help="how well a checkpoint of drawn shapes does what the prompt says")
    sub.add_argument("--model", default="helios-tiny", help=MODEL_HELP)
    sub.add_argument("-o", "--output", default="bench-tiny", metavar="FOLDER", help="for the report")
    sub.add_argument("--prompts", type=int, default=32, help="held-out prompts (default: %(default)s)")
    sub.add_argument("--seeds", type=int, default=1, help="seeds per prompt (default: %(default)s)")
    sub.add_argument("--chunks", type=int, default=4, help="33 frames each; 44 are a minute (default: %(default)s)")
    sub.add_argument("--batch", type=int, default=16, help="videos that grow together (default: %(default)s)")
    sub.add_argument("--setting", action="append", metavar="TEXT", help=SETTING_HELP)
    actors.add_options(sub, "batches of videos")
    sub.add_argument("--anti-drift", metavar="POLICY", help=DRIFT_HELP)
    sub.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)


def _dispatch(args: argparse.Namespace, rest: list[str]) -> int:
    if args.command == "resume":
        from .commands.going_on import resumed

        return _run(resumed(args.folder))
    if args.command == "train":
        return import_module(f".commands.{TRAINERS[args.what]}", __package__).train(rest)
    module, name = WORK[args.command]
    return getattr(import_module(f".commands.{module}", __package__), name)(args)


if __name__ == "__main__":
    entry()
