"""`helios generate`: a prompt becomes an MP4, each finished chunk a playable file on the way there."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from ..disk import inside
from ..media import read_picture
from ..text import PromptSchedule, check_prompt, check_text
from . import start
from .batch import batch
from .going_on import command_again
from .outputs import choose_output
from .render import check, open_model, render


def generate(args: argparse.Namespace) -> int:
    """Prints the file's name on stdout, everything else on stderr. ValueError for bad arguments, before any work."""
    if (args.ray is not None or args.actors is not None) and "WORLD_SIZE" not in os.environ:
        from .cluster import spread

        return spread(args)
    if args.gpus is not None or args.split_guidance or args.shard or "WORLD_SIZE" in os.environ:
        from .gpus import several

        return several(args, _generate)
    return _generate(args)


def _generate(args: argparse.Namespace) -> int:
    if args.prompts_file is not None:
        if args.live is not None:
            raise ValueError("--live shows one video: leave it out with --prompts-file")
        start.settle_seed(args)
        args.line = command_again(args, "output")
        return batch(args)
    return film(args)


def film(args: argparse.Namespace) -> int:
    """One video of the options of `helios generate`, and its file's name on stdout. args.score: in place of a prompt's
    options, where there is one. ValueError for bad arguments, before any work."""
    start.settle_seed(args)
    args.line = command_again(args, "output")
    prompt = _prompt(args)
    check(args)
    picture = partial(_picture, _folders(args))
    for name in prompt.pictures if isinstance(prompt, PromptSchedule) else ():
        picture(name)
    choose_output(args)
    start.check_picture(args)
    start.settle_rate(args)
    print(render(open_model(args), prompt, args, picture=picture))
    return 0


def _prompt(args: argparse.Namespace) -> str | PromptSchedule:
    if args.prompts_at is not None:
        return PromptSchedule.parse(args.prompts_at)
    if args.timeline is not None and not hasattr(args, "score"):
        args.score = read_score(args.timeline)
    if hasattr(args, "score"):
        args.prompt = None
        return PromptSchedule.parse(args.score)
    check_prompt(args.prompt, "--prompt")
    return args.prompt


def read_score(path: str) -> str:
    """A score's text. ValueError for a file that is none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"--timeline {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ValueError(f"--timeline {path}: this is no text in UTF-8") from None
    check_text(text, f"--timeline {path}")
    return text


def _folders(args: argparse.Namespace) -> list[Path]:
    """Where the pictures of a score may lie: beside its file; of a retake, whose command may be given from elsewhere,
    also in that place as it is seen from the video, and beside the video."""
    beside = Path(args.timeline).parent if args.timeline else Path()
    video = getattr(args, "pictures", None)
    return [beside] if video is None else [beside, video / beside, video]


def _picture(folders: list[Path], name: str):
    """uint8 [1 h w 3] of a picture that a score names, in the first of the folders that has it."""
    for folder in folders:
        path = inside(folder, name)
        if path.is_file():
            return read_picture(path)[None]
    places = " or ".join(dict.fromkeys(str(folder) for folder in folders))
    raise ValueError(f"the score names the picture {name!r}, which is not in {places}")
