"""The `helios` command: generate, run, doctor, train. Each subcommand's work is in commands/, imported when it runs.

Exit codes: 0 done, 2 for something wrong in what was asked (one line says what), 1 for a failing disk, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys

DESCRIPTION = "Helios text to video, chunk by chunk. Start with: helios generate --prompt 'a red circle moving left'"
MODEL_HELP = (
    "a checkpoint folder, or the name of one that `helios doctor` lists (default: helios-tiny, which is built in)"
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="helios", description=DESCRIPTION)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="a prompt becomes an MP4"))
    _add_run(commands.add_parser("run", help="run a ComfyUI workflow file, without ComfyUI"))
    commands.add_parser("doctor", help="show backends, devices, memory, model folders and checkpoints")
    train = commands.add_parser("train", help="train a checkpoint: helios train tiny", add_help=False)
    train.add_argument("what", choices=["tiny"], help="tiny: the checkpoint that ships with the pack")
    return root


def _add_generate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--prompt", required=True, help="what the video shows")
    sub.add_argument("-o", "--output", default="helios.mp4", metavar="MP4", help="file to write (default: %(default)s)")
    sub.add_argument("--negative", metavar="PROMPT", help="what it should not show; used with guidance above 1")
    sub.add_argument("--model", default="helios-tiny", help=MODEL_HELP)
    sub.add_argument("--width", type=int, help="pixels (default: the checkpoint's own)")
    sub.add_argument("--height", type=int, help="pixels (default: the checkpoint's own)")
    sub.add_argument("--frames", type=int, default=132, help="length; a chunk has 33 (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="the same seed gives the same video (default: %(default)s)")
    sub.add_argument("--steps", help="per pyramid stage, such as 2,2,2 (default: the checkpoint's own)")
    sub.add_argument("--cfg", type=float, default=0.0, help="guidance scale; 0 is the checkpoint's own, 1 is none")
    sub.add_argument("--solver", choices=["auto", "dmd", "euler"], default="auto", help="default: the checkpoint's own")
    sub.add_argument("--fps", type=float, default=24, help="frames per second (default: %(default)s)")
    _add_machine(sub)


def _add_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("workflow", metavar="WORKFLOW.json", help="UI or API format; this pack's and a few core nodes")
    sub.add_argument("--set", dest="sets", action="append", default=[], metavar="NODE.INPUT=VALUE", help=SET_HELP)
    sub.add_argument("--input-dir", default=".", help="where Load Image and Load Video look (default: here)")
    sub.add_argument("--output-dir", default=".", help="where Save Video writes (default: here)")
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")


def _add_machine(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--backend", choices=["auto", "torch"], default="auto", help="what computes (default: %(default)s)"
    )
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")


SET_HELP = "change an input; NODE is a node's id, title or type, such as T5Encode.text='a red ball'. Repeatable."


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, rest = parser().parse_known_args(argv)
    if rest and args.command != "train":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _dispatch(args, rest)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"helios {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full or failing disk
        print(f"helios {args.command}: {error}", file=sys.stderr)
        return 1


def _dispatch(args: argparse.Namespace, rest: list[str]) -> int:
    if args.command == "generate":
        from .commands.generate import generate

        return generate(args)
    if args.command == "run":
        from .commands.run import run

        return run(args)
    if args.command == "doctor":
        from .commands.doctor import doctor

        return doctor()
    from .training import tiny

    return tiny.main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
