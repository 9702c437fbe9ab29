"""`helios retake` and `helios takes`: a video made again from a chunk on, and which videos were made so.

The file of a video says what made it. Its chunks before the one that is taken again come from the store of finished
chunks, where they are still there; else they are sampled as they were.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..history import saved
from ..join import video
from ..text import PromptSchedule, as_schedule, editing
from . import Parser
from .generate import film
from .options import add_generate
from .render import boundary_of

# Options that are not taken from a video's file.
OWN = ("prompt", "prompts_at", "prompts_file", "timeline", "output", "overwrite", "save_history", "threads")
CHUNK = 33  # frames
FROM_HELP = "the first chunk that is made anew, counted from 0; after --resume, from the saved run's next one"
OUTPUT_HELP = "file to write; a name that is taken becomes the next free one (default: VIDEO's, such as helios_2.mp4)"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of `helios retake`."""
    sub.add_argument("video", metavar="VIDEO", help="an MP4 of helios generate or helios retake")
    sub.add_argument("--from", dest="chunk", type=int, required=True, metavar="CHUNK", help=FROM_HELP)
    sub.add_argument("--seed", type=int, metavar="N", help="another seed from there on: another take")
    sub.add_argument("--prompt", metavar="TEXT", help="another prompt from there on")
    sub.add_argument("--cfg", type=float, metavar="X", help="another guidance from there on")
    sub.add_argument("--cut", action="store_true", help="that chunk sees nothing of what was before")
    sub.add_argument("-o", "--output", metavar="MP4", help=OUTPUT_HELP)


def retake(args: argparse.Namespace) -> int:
    """Prints the file's name on stdout. ValueError where the video does not say how it was made, or has no such chunk,
    and for a take that is like the one there is."""
    about = made_by(args.video)
    changes = {name: value for name in ("seed", "prompt", "cfg") if (value := getattr(args, name)) is not None}
    changes |= {"cut": True} if args.cut else {}
    if not changes:
        raise ValueError("a retake needs something that is different: --seed, --prompt, --cfg or --cut")
    if args.prompt is not None and not args.prompt.strip():
        raise ValueError("--prompt: the prompt is empty; leave it out to keep the one there is")
    again = restored(about, args.video)
    first, chunks = chunks_of(args.video, about, again)
    if not first <= args.chunk < first + chunks:
        raise ValueError(f"--from {args.chunk}: {args.video} has the chunks {first} to {first + chunks - 1}")
    before = score_of(about)
    after = editing.edit(before, args.chunk, **changes)
    if _meant(before, again, first + chunks) == _meant(after, again, first + chunks):
        raise ValueError(f"chunk {args.chunk} of {args.video} is made so already")
    again.score, again.timeline, again.pictures = after, about.get("timeline"), Path(args.video).parent
    again.take_of, again.take_from = Path(args.video).name, args.chunk
    again.command, again.line, again.output = args.command, args.line, args.output or args.video
    return film(again)


def _meant(score: str, settings: argparse.Namespace, count: int) -> list:
    """What each of so many chunks is made by: what the score leaves open, the settings say."""
    schedule = PromptSchedule.parse(score)
    open_ones = {"seed": settings.seed or 0, "cfg": settings.cfg}
    found = []
    for chunk in range(count):
        given = schedule.direction(chunk)
        filled = {name: value for name, value in open_ones.items() if getattr(given, name) is None}
        found.append((schedule.shares(chunk), replace(given, **filled)))
    return found


def chunks_of(path, about: dict, settings: argparse.Namespace) -> tuple[int, int]:
    """The number of a video's first chunk, which is above 0 where a saved run was gone on with, and how many it has.

    ValueError where that run has gone on meanwhile, in the same file.
    """
    count = boundary_of(settings).chunks(video.probe(path).frames, CHUNK)
    if settings.resume is None:
        return 0, count
    first, now = about.get("first_chunk"), saved.read_chunk(settings.resume)
    if first != now:
        raise ValueError(
            f"{path} went on with the run in {settings.resume} from chunk {first}, but that is at chunk {now} by now; "
            "put the file of then in its place"
        )
    return first, count


def takes(args: argparse.Namespace) -> int:
    """Prints the takes of a video that lie in its folder, each with what it has that is different."""
    about = {path.name: told for path in sorted(Path(args.video).parent.glob("*.mp4")) if (told := _told(path))}
    about |= {Path(args.video).name: told_by(args.video)}  # whatever its ending
    root, seen = Path(args.video).name, set()
    while root not in seen and (parent := about[root].get("take_of")) in about:
        seen.add(root)
        root = parent
    for name, told in _family(root, about):
        taken = ""
        if "take_from" in told:
            text = score_of(told)
            said = editing.entry(text, told["take_from"])
            taken = f"{told['take_of']} from chunk {told['take_from']} on: {said}"
        print(f"{name}: {taken or score_of(told)}".replace("\n", "; "))
    return 0


def _family(root: str, about: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    """A video, then its takes, and theirs."""
    found, todo = [], [root]
    while todo:
        name = todo.pop(0)
        if name in about and name not in found:
            found.append(name)
            yield name, about[name]
            todo = [other for other, told in about.items() if told.get("take_of") == name] + todo


def _told(path: Path) -> dict | None:
    try:
        return told_by(path)
    except ValueError:
        return None


def told_by(path) -> dict:
    """As `made_by`. ValueError also where the score that it holds is none."""
    about = made_by(path)
    editing.entries(score_of(about))
    return about


def made_by(path) -> dict:
    """The settings that a video's file holds. ValueError where it holds none of ours."""
    found = video.read_metadata(path).get("helios")
    if not isinstance(found, dict) or not any(isinstance(found.get(n), str) for n in ("prompt", "prompts_at", "score")):
        raise ValueError(f"{path} does not say how it was made: wanted a video of helios generate")
    if not isinstance(found.get("timeline"), (str, type(None))):
        raise ValueError(f"{path} does not say how it was made: its timeline is {found['timeline']!r}, no file's name")
    if isinstance(found.get("take_of"), str) and type(found.get("take_from")) is int:
        return found
    return {name: value for name, value in found.items() if name not in ("take_of", "take_from")}


def score_of(about: dict) -> str:
    """The score by which a video was made, of its settings."""
    if isinstance(text := about.get("score") or about.get("prompts_at"), str):
        return text
    return editing.write(as_schedule(about["prompt"].strip()))


def restored(about: dict, path) -> argparse.Namespace:
    """The settings that a video's file holds, as options of `helios generate` that were parsed and checked anew.
    ValueError, with the file's name, for what is none."""

    def refuse(message: str):
        raise ValueError(f"{path} says that it was made with settings that helios generate does not take: {message}")

    parser = Parser(prog="helios generate")
    add_generate(parser)
    parser.error = refuse
    line = ["--prompt", "any"]
    for action in parser._actions:
        value = about.get(action.dest)
        if action.dest in OWN or value is None or value == action.default or not action.option_strings:
            continue
        flag = action.option_strings[-1]
        if action.nargs == 0:
            line += [flag]
        else:
            line += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return parser.parse_args(line)
