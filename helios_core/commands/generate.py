"""`helios generate`: a prompt becomes an MP4, each finished chunk a playable file on the way there."""

from __future__ import annotations

import argparse

from ..text import PromptSchedule, check_prompt
from . import start
from .batch import batch
from .outputs import choose_output
from .render import check, open_model, render


def generate(args: argparse.Namespace) -> int:
    """Prints the file's name on stdout, everything else on stderr. ValueError for bad arguments, before any work."""
    start.settle_seed(args)
    if args.prompts_file is not None:
        return batch(args)
    prompt = _prompt(args)
    check(args)
    out = choose_output(args)
    start.settle_rate(args)
    print(render(open_model(args), prompt, out, args))
    return 0


def _prompt(args: argparse.Namespace) -> str | PromptSchedule:
    if args.prompts_at is not None:
        return PromptSchedule.parse(args.prompts_at)
    check_prompt(args.prompt, "--prompt")
    return args.prompt
