"""`helios study`: which policies earn their place, and the papers' experiments, measured and written up."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .. import load
from ..checkpoint import folders
from ..config import check_whole, limits
from ..disk import check_folder, check_name
from ..measure import figures
from . import Terminal, actors, set_threads
from .outputs import check_apart
from .study_actors import measure_all

WHAT_HELP = (
    "policies: variance, anti-drift and boundary policies; ul, ve: the experiments of Unified Latents and of Variance "
    "Expansion, as toys; control: which variance policy control latents want, by training (issue #116)"
)
PAGE_HELP = "the Markdown page to write, its pictures into a folder beside it (default: WHAT.md in -o)"
QUICK_HELP = "a few short videos, to see that it runs; --prompts, --seeds and --chunks still count"


def add_options(sub: argparse.ArgumentParser, model_help: str) -> None:
    """The command line of `helios study`."""
    sub.add_argument("what", choices=["policies", "ul", "ve", "control"], help=WHAT_HELP)
    sub.add_argument("--model", default="helios-tiny", help=model_help)
    sub.add_argument("--vae", metavar="FILE", help="policies: another VAE for the checkpoint, as helios train ve makes")
    sub.add_argument("-o", "--output", metavar="FOLDER", help="for all that is measured (default: study-WHAT)")
    sub.add_argument("--page", metavar="FILE.md", help=PAGE_HELP)
    sub.add_argument("--prompts", type=int, help="held-out prompts, or paths of control (default: 12)")
    sub.add_argument("--seeds", type=int, help="seeds per prompt (default: 3)")
    sub.add_argument("--chunks", type=int, help="of a long video, 33 frames each (default: 44, a minute)")
    sub.add_argument("--part", action="append", metavar="NAME", help="only this part of the study; repeatable")
    sub.add_argument("--quick", action="store_true", help=QUICK_HELP)
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice; ul: 2)")
    actors.add_options(sub, "the videos of policies")
    sub.add_argument("--data", metavar="FOLDER", help="ul, ve: photographs (default: those of installed packages)")
    sub.add_argument("--steps", type=int, help="ul, ve: of each training (default: 1500, 4000)")


def study(args: argparse.Namespace) -> int:
    """Measures, tells what follows, and prints where the page is. ValueError for what cannot be, before any work."""
    folder = Path(args.output or f"study-{args.what}")
    page = Path(args.page) if args.page else folder / f"{args.what}.md"
    if page.suffix != ".md":
        raise ValueError(f"--page {page}: wanted a file whose name ends in .md")
    check_name(page.name)
    check_apart(page, args)
    if page.is_file() and "This page is generated" not in page.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{page} is there already and is no page of a study; choose another --page or remove it")
    for name, most in (("prompts", 10_000), ("seeds", 10_000), ("chunks", limits.CHUNKS), ("steps", 10**7)):
        if getattr(args, name) is not None:
            check_whole(f"--{name}", getattr(args, name), most)
    actors.check_options(args)
    if args.ray is not None and args.what != "policies":
        raise ValueError(f"--ray spreads the videos of study policies; study {args.what} is one after another")
    figures.require()
    check_folder(folder)
    check_folder(page.absolute().parent)
    run = {"policies": study_policies, "ul": study_ul, "ve": study_ve, "control": study_control}[args.what]
    run(args, folder, page, rerun(args))
    print(page)
    return 0


def study_policies(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """The parts that are asked for, and what follows."""
    from ..study import policies

    asked = {name: getattr(args, name) for name in ("prompts", "seeds", "chunks") if getattr(args, name) is not None}
    sizes = replace(policies.QUICK if args.quick else policies.PolicySizes(), **asked)
    parts = choose(policies.PARTS, args.part)
    set_threads(args.threads)
    helios = load(args.model, vae=folders.find_file("vae", args.vae), host=Terminal())
    out = sys.stdout
    tell = lambda text: print(text, file=out, flush=True)  # noqa: E731
    if args.ray is not None:
        measure_all(helios, parts, sizes, folder, args, tell)
    report = policies.study(helios, sizes, folder, page=page, command=command, parts=parts, tell=tell)
    for part in parts:
        found = report["parts"][part.name]
        print(f"{part.name}: earning: {', '.join(found['earning']) or 'nothing'}; default: {found['result']}")


def study_ul(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """Trains, measures and writes the page. ValueError for what cannot be, before any work."""
    from ..study import ul
    from ..training import find_photos

    files = find_photos(Path(args.data) if args.data else None)
    steps = args.steps or (4 if args.quick else ul.UnifiedSizes.steps)
    sizes = ul.UnifiedSizes(steps, args.seeds or (1 if args.quick else ul.UnifiedSizes.seeds))
    tell = lambda text: print(text, flush=True)  # noqa: E731
    ul.study(files, folder, sizes, page=page, command=command, workers=args.threads or 2, tell=tell)


def study_ve(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """Trains what is not trained yet, and writes the page and the figures."""
    from ..study import ve
    from ..training import find_photos

    sizes = ve.QUICK if args.quick else ve.VarianceSizes()
    if args.steps:
        sizes = replace(sizes, steps=args.steps, flow_steps=args.steps)
    if args.seeds:
        sizes = replace(sizes, seeds=args.seeds)
    set_threads(args.threads)
    train, test = ve.cut_patches(find_photos(Path(args.data) if args.data else None), sizes.patches)
    folder.mkdir(parents=True, exist_ok=True)
    for line in ve.study(train, test, folder, sizes, page=page, command=command):
        print(line, flush=True)


def study_control(args: argparse.Namespace, folder: Path, page: Path, command: str) -> None:
    """Trains and measures the adapters that are not there yet, one by one; the page is written after each."""
    from ..study import control

    sizes = control.QUICK if args.quick else control.ControlSizes()
    given = {"steps": args.steps, "seeds": args.seeds, "videos": args.prompts, "chunks": args.chunks}
    sizes = replace(sizes, **{name: value for name, value in given.items() if value is not None})
    set_threads(args.threads)
    helios = load(args.model, backend="torch", vae_dtype="fp32", host=Terminal())
    tell = lambda text: print(text, flush=True)  # noqa: E731
    control.study(helios, sizes, folder, page=page, command=command, tell=tell)


def choose(parts, names: list[str] | None):
    """The parts of these names, all if none is given. ValueError for another name."""
    known = {part.name: part for part in parts}
    wrong = [name for name in names or () if name not in known]
    if wrong:
        raise ValueError(f"--part {wrong[0]!r}: wanted one of {', '.join(known)}")
    return tuple(part for part in parts if not names or part.name in names)


def rerun(args: argparse.Namespace) -> str:
    """The command line again; of folders that only this machine has, no more than the name."""
    words = [f"helios study {args.what}"]
    if args.model != "helios-tiny":
        words.append(f"--model {Path(args.model).name}")
    if args.vae:
        words.append(f"--vae {Path(args.vae).name}")
    words += [f"--{name} {value}" for name in ("prompts", "seeds", "chunks", "steps") if (value := getattr(args, name))]
    words += [f"--part {name}" for name in args.part or ()]
    if args.quick:
        words.append("--quick")
    if args.page and not Path(args.page).is_absolute():
        words.append(f"--page {args.page}")
    return " ".join(words)
