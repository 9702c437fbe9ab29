"""`helios generate --prompts-file`: one video per row of a text or CSV file, with one load of the model.

A row that is wrong or fails is told, once more at the end, and does not stop the others. Finished files are left alone,
so a batch that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import NamedTuple

from ..disk import beside, identity, inside, plain, shown
from ..join import check_writable, read_metadata
from ..noise import Noise
from ..text import check_prompt
from .failures import caught
from .going_on import through
from .outputs import check_apart
from .render import announce, check, open_model, render
from .start import check_picture, settle_rate

COLUMNS = ("prompt", "negative", "seed", "frames", "output", "image")


class Job(NamedTuple):
    """One video to make: where it stands in the file, its own file, and the arguments of `helios generate` for it."""

    line: int
    out: Path
    args: argparse.Namespace


class Fault(NamedTuple):
    """A row of which no video came: where it stands, its prompt, and why."""

    line: int
    prompt: str
    why: str


def batch(args: argparse.Namespace) -> int:
    """Prints the name of every file made on stdout; 1 if any failed. ValueError for a bad file, before any work, and
    where no row of it can be made."""
    jobs, failed = read_jobs(Path(args.prompts_file), args)
    total = len(jobs) + len(failed)
    tell_faults(args, jobs, failed)
    todo = [job for job in jobs if args.overwrite or not finished(job)]
    failed += _render(todo, args) if todo else []
    return tell_failed(failed, total)


def tell_faults(args: argparse.Namespace, jobs: list[Job], failed: list[Fault]) -> None:
    """Of rows that cannot be made, before the others are. ValueError where there are no others."""
    if not jobs:
        raise ValueError("; ".join(f"{args.prompts_file}, line {fault.line}: {fault.why}" for fault in failed[:5]))
    for fault in failed:
        print(f"line {fault.line} ({fault.prompt}) is left out: {fault.why}", file=sys.stderr)


def tell_failed(failed: list[Fault], total: int) -> int:
    """Of all that failed, in the end; the exit code."""
    if failed:
        print(f"{len(failed)} of {total} failed:", file=sys.stderr)
    for fault in sorted(failed):
        print(f"  line {fault.line} ({fault.prompt}): {fault.why}", file=sys.stderr)
    return 1 if failed else 0


def _render(todo: list[Job], args: argparse.Namespace) -> list[Fault]:
    """One video after another; those that failed."""
    model = open_model(args)
    announce(model, args)
    negatives = {job.args.negative or "": None for job in todo}
    model.encode_ahead(dict.fromkeys(job.args.prompt for job in todo), negatives, cfg=args.cfg)
    faults = []
    for i, job in enumerate(todo, 1):
        print(f"[{i}/{len(todo)}] {job.args.prompt}", file=sys.stderr)
        with caught("generate") as found:
            print(render(model, job.args.prompt, job.args, announced=True), flush=True)
        for failure in found:
            print(f"failed: {failure.text}", file=sys.stderr)
            faults.append(Fault(job.line, job.args.prompt, failure.text))
    return faults


def finished(job: Job) -> bool:
    """Whether the job's file is there; says so. A file appears only once it is whole."""
    if not job.out.exists():
        return False
    through(str(job.out))
    try:
        kept = read_metadata(job.out).get("helios")
        made = kept.get("prompt") if isinstance(kept, dict) else None
    except (ValueError, OSError):
        made = None
    other = "" if made == job.args.prompt else ", made from another prompt; --overwrite makes it anew"
    print(f"line {job.line}: {job.out} is there already{other}", file=sys.stderr)
    return True


def read_jobs(path: Path, args: argparse.Namespace) -> tuple[list[Job], list[Fault]]:
    """The videos that a file asks for, what it leaves open from `args`, and the rows that ask for none that can be.

    ValueError for a file that is no table of prompts.
    """
    if not path.is_file():
        raise ValueError(f"no file of prompts at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    rows = _read_csv(path, text) if path.suffix.lower() == ".csv" else _read_lines(text)
    if not rows:
        raise ValueError(f"{path} holds no prompt")
    if args.start_noise is not None and args.video is None and not any(row.get("image") for _, row in rows):
        raise ValueError(f"--start-noise is mixed into a picture or a video, and {path} begins with none; leave it out")
    jobs, faults, written = [], [], {}
    read = {identity(path.parent / row["image"]): line for line, row in rows if row.get("image")}
    for number, (line, row) in enumerate(rows, 1):
        try:
            job = _job(line, row, number, path.parent, args)
            _check_output(job, written, read)
            jobs.append(job)
        except ValueError as error:
            faults.append(Fault(line, row.get("prompt", ""), str(error)))
    return jobs, faults


def _check_output(job: Job, written: dict, read: dict) -> None:
    """ValueError where two lines write one file, or one writes what another reads, by whatever path."""
    place = os.path.normcase(os.path.realpath(job.out))
    if place in written:
        raise ValueError(f"lines {written[place]} and {job.line} both write {job.out}")
    if identity(job.out) is not None and (line := read.get(identity(job.out))):
        raise ValueError(f"{job.out} is the picture that line {line} begins with")
    written[place] = job.line


def _read_lines(text: str) -> list[tuple[int, dict[str, str]]]:
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return [(i, {"prompt": line}) for i, line in lines if line and not line.startswith("#")]


def _read_csv(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """Rows by line; one with too many or too few fields has the key None, and why as its value."""
    reader = csv.DictReader(text.splitlines(keepends=True), skipinitialspace=True)
    try:
        return _rows(path, reader)
    except csv.Error as error:  # such as a field of more than 128 KB
        raise ValueError(f"{path}, line {reader.line_num}: {error}; wanted a table with commas") from error


def _rows(path: Path, reader: csv.DictReader) -> list[tuple[int, dict[str, str]]]:
    names = [name.strip() for name in reader.fieldnames or []]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has a column twice: {', '.join(names)}")
    if "prompt" not in names or set(names) - set(COLUMNS):
        raise ValueError(
            f"{path} has the columns {', '.join(map(plain, names[:12]))}; wanted prompt, and any of "
            + ", ".join(COLUMNS[1:])
        )
    reader.fieldnames, rows = names, []
    for row in reader:
        if None in row or None in row.values():
            row = {"prompt": row["prompt"] or "", None: f"wanted {len(names)} fields; put quotes around commas"}
        rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    return rows


def _job(line: int, row: dict[str, str], number: int, folder: Path, args: argparse.Namespace) -> Job:
    if None in row:
        raise ValueError(row[None])
    given = {name: value for name, value in row.items() if value}
    check_prompt(row["prompt"])
    base = Path(args.output)
    out = beside(base, f"_{number:04d}{base.suffix}")
    out = check_writable(inside(base.parent, given.pop("output")) if "output" in given else out)
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
    check_picture(own)
    settle_rate(own)
    Noise(own.seed)
    return Job(line, out, own)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 40:
        raise ValueError(f"{name} {shown(text)}: wanted a whole number")
    return int(text)
