"""`helios generate --prompts-file`: one video per row of a text or CSV file, with one load of the model.

A row that fails is told at the end and does not stop the others. Finished files are left alone, so a batch that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import NamedTuple

from ..join import check_writable, read_metadata
from ..noise import Noise
from ..safe_files import identity
from ..text import check_prompt
from .outputs import check_apart
from .render import announce, check, open_model, render
from .start import settle_rate

COLUMNS = ("prompt", "negative", "seed", "frames", "output", "image")


class Job(NamedTuple):
    """One video to make: where it stands in the file, its own file, and the arguments of `helios generate` for it."""

    line: int
    out: Path
    args: argparse.Namespace


def batch(args: argparse.Namespace) -> int:
    """Prints the name of every file made on stdout; 1 if any failed. ValueError for a bad file, before any work."""
    jobs = read_jobs(Path(args.prompts_file), args)
    todo = [job for job in jobs if args.overwrite or not _finished(job)]
    if not todo:
        return 0
    model = open_model(args)
    announce(model, args)
    negatives = {job.args.negative or "": None for job in todo}
    model.encode_ahead(dict.fromkeys(job.args.prompt for job in todo), negatives, cfg=args.cfg)
    failed = []
    for i, job in enumerate(todo, 1):
        print(f"[{i}/{len(todo)}] {job.args.prompt}", file=sys.stderr)
        try:
            print(render(model, job.args.prompt, job.out, job.args, announced=True), flush=True)
        except (ValueError, OSError, MemoryError, RuntimeError) as error:  # out of memory is a RuntimeError in torch
            print(f"failed: {error}", file=sys.stderr)
            failed.append((job, error))
    if failed:
        print(f"{len(failed)} of {len(todo)} failed:", file=sys.stderr)
    for job, error in failed:
        print(f"  line {job.line} ({job.args.prompt}): {error}", file=sys.stderr)
    return 1 if failed else 0


def _finished(job: Job) -> bool:
    """Whether the job's file is there; says so. A file appears only once it is whole."""
    if not job.out.exists():
        return False
    try:
        made = (read_metadata(job.out).get("helios") or {}).get("prompt")
    except (ValueError, OSError):
        made = None
    other = "" if made == job.args.prompt else ", made from another prompt; --overwrite makes it anew"
    print(f"line {job.line}: {job.out} is there already{other}", file=sys.stderr)
    return True


def read_jobs(path: Path, args: argparse.Namespace) -> list[Job]:
    """The videos that a file asks for, what it leaves open from `args`. ValueError names the line that is wrong."""
    if not path.is_file():
        raise ValueError(f"no file of prompts at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    rows = _read_csv(path, text) if path.suffix.lower() == ".csv" else _read_lines(text)
    if not rows:
        raise ValueError(f"{path} holds no prompt")
    jobs = []
    for number, (line, row) in enumerate(rows, 1):
        try:
            jobs.append(_job(line, row, number, path.parent, args))
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    _check_outputs(path, jobs)
    return jobs


def _check_outputs(path: Path, jobs: list[Job]) -> None:
    """ValueError where two lines write one file, or one writes what another reads, by whatever path."""
    written, read = {}, {identity(job.args.image): job.line for job in jobs if job.args.image is not None}
    for job in jobs:
        place = os.path.normcase(os.path.realpath(job.out))
        if place in written:
            raise ValueError(f"{path}: lines {written[place]} and {job.line} both write {job.out}")
        written[place] = job.line
        if line := read.get(identity(job.out)):
            raise ValueError(f"{path}, line {job.line}: {job.out} is the picture that line {line} begins with")


def _read_lines(text: str) -> list[tuple[int, dict[str, str]]]:
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return [(i, {"prompt": line}) for i, line in lines if line and not line.startswith("#")]


def _read_csv(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(text.splitlines(keepends=True), skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or []]
    if "prompt" not in names or set(names) - set(COLUMNS):
        raise ValueError(
            f"{path} has the columns {', '.join(names)}; wanted prompt, and any of {', '.join(COLUMNS[1:])}"
        )
    reader.fieldnames, rows = names, []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {reader.line_num}: wanted {len(names)} fields; put quotes around commas")
        rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    return rows


def _job(line: int, row: dict[str, str], number: int, folder: Path, args: argparse.Namespace) -> Job:
    given = {name: value for name, value in row.items() if value}
    check_prompt(row["prompt"])
    base = Path(args.output)
    out = base.with_name(f"{base.stem}_{number:04d}{base.suffix}")
    out = check_writable(base.parent / given.pop("output") if "output" in given else out)
    for name in ("seed", "frames"):
        if name in given:
            given[name] = _whole(name, given[name])
    if "image" in given:
        given["image"] = str(folder / given["image"])
        if not Path(given["image"]).is_file():
            raise ValueError(f"no picture at {given['image']}")
    own = argparse.Namespace(**{**vars(args), **given, "output": str(out)})
    check(own)
    check_apart(out, own)
    settle_rate(own)
    Noise(own.seed)
    return Job(line, out, own)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} {text!r}: wanted a whole number")
    return int(text)
