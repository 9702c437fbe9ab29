"""`helios download`: a published checkpoint from the Hugging Face hub into the folder where it is looked for.

What is fetched and how large it is stands in the hub's own list of files, and is said first. A download that was
stopped goes on when the command is given again: files that are whole are kept, and a line that goes dead meanwhile is
taken up within the file. Recent versions of huggingface_hub begin a file anew after a kill: few are under way at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import re
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import PARTS, folders, open_checkpoint
from ..config import INDEX
from ..devices import installed
from ..disk import check_folder

OWNER = "BestWishYsh"
SITE = "https://huggingface.co"
REPOSITORIES = {name: f"{OWNER}/Helios-{name.capitalize()}" for name in ("distilled", "mid", "base")}
INSTALL = "pip install 'helios-video[download]', or pip install huggingface_hub"
ROOT_FILES = (INDEX, "generation_config.json", "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
ROOMS = (*PARTS, "tokenizer", "scheduler")
ENDINGS = (".json", ".safetensors", ".model", ".txt")
SPARE = 2**30  # of the disk, beside what is fetched
LIBRARIES = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3", "hf_xet")  # whose errors are the network's
KEPT = "Files that have arrived whole are kept, and the same command goes on from there"
AT_ONCE = 2  # files; each is lost by a kill, and the transformer's have about 5 GB
UNFINISHED = Path(".cache") / "huggingface" / "download"  # where huggingface_hub keeps what it has of a file
ONLY_ONCE = r"\.[0-9a-f]{8}\.incomplete$"  # such a one is of one process, and no other takes it up
STALE = 60  # seconds without a byte, after which its process has gone


class Listed(NamedTuple):
    """A file of a repository: its path there, and its bytes."""

    name: str
    size: int


def add_options(sub: argparse.ArgumentParser) -> None:
    """The command's options."""
    sub.add_argument("variant", choices=list(REPOSITORIES), help="distilled: the fast one; base: the most careful one")
    sub.add_argument("--to", metavar="FOLDER", help=TO_HELP)
    sub.add_argument("--dry-run", action="store_true", help="say what would be fetched, and how large it is, and end")


TO_HELP = (
    "the folder of checkpoints that gets a folder such as Helios-Distilled, for ComfyUI its models/helios (default: "
    "models/helios here, which the command line looks into)"
)


def download(args: argparse.Namespace) -> int:
    """Prints the checkpoint's folder on stdout, all else on stderr. ValueError for want of the package, of the network
    or of room on the disk."""
    repository = REPOSITORIES[args.variant]
    place = Path(args.to or folders.search_folders()[0]).expanduser() / repository.split("/")[1]
    if not installed("huggingface_hub"):
        raise ValueError(f"fetching needs huggingface_hub: {INSTALL}. {by_hand(repository, place)}")
    with naming(repository, place, "Nothing was changed"):
        revision, listed = list_files(repository)
    wanted = [file for file in listed if is_read(file.name)]
    if not any(file.name == INDEX for file in wanted):
        raise ValueError(f"{SITE}/{repository} has no {INDEX} any more; {by_hand(repository, place)}")
    missing = [file for file in wanted if not is_there(place, file)]
    announce(repository, place, listed, wanted, missing)
    if args.dry_run:
        return 0
    check_room(place, sum(file.size for file in missing))
    if missing:
        fetch(repository, revision, place, missing)
    open_checkpoint(place)  # headers are read whole, so that what is cut short is told now
    print(f"helios generate --model {named(place)} --prompt '...' makes a video with it", file=sys.stderr)
    print(place)
    return 0


def list_files(repository: str) -> tuple[str, list[Listed]]:
    """The commit that the repository stands at, and its files."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, files_metadata=True)
    return info.sha, [Listed(file.rfilename, file.size or 0) for file in info.siblings]


def is_read(name: str) -> bool:
    """Whether loading reads this file of a repository; others are of the training, or the same weights once more."""
    room, slash, rest = name.partition("/")
    return name in ROOT_FILES if not slash else room in ROOMS and "/" not in rest and rest.endswith(ENDINGS)


def is_there(place: Path, file: Listed) -> bool:
    """Whether a file was fetched already, whole."""
    found = place / file.name
    return found.is_file() and found.stat().st_size == file.size


def announce(repository: str, place: Path, listed: list[Listed], wanted: list[Listed], missing: list[Listed]) -> None:
    """What goes where, how large it is, what is there already and what is left out."""
    here = total(wanted) - total(missing)
    say = [f"{SITE}/{repository}", f"into {place}"]
    for room in ROOMS:
        files = [file for file in wanted if file.name.startswith(f"{room}/")]
        say.append(f"  {room}/  {gigabytes(total(files))}, {len(files)} file{'s' * (len(files) != 1)}")
    say.append(f"in all {gigabytes(total(wanted))}, {f'{gigabytes(here)} of them are there, ' if here else ''}"
               f"{gigabytes(total(missing))} to fetch")  # fmt: skip
    if left := sorted({file.name.partition("/")[0] for file in listed if "/" in file.name and not is_read(file.name)}):
        rest = total(listed) - total(wanted)
        say.append(f"left out, as no video needs it: {', '.join(left)} ({gigabytes(rest)})")
    print("\n".join(say), file=sys.stderr)


def check_room(place: Path, needed: int) -> None:
    """ValueError where the folder cannot be written to or its disk has too little room."""
    check_folder(place)
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    begun = sum(file.stat().st_size for file in unfinished(place) if not re.search(ONLY_ONCE, file.name))
    if needed - begun + SPARE > free:
        raise ValueError(
            f"{place}: {gigabytes(max(needed - begun, 0))} are to be fetched and {gigabytes(free)} are free on that "
            "disk; make room, or name a folder on another disk with --to"
        )


def unfinished(place: Path) -> list[Path]:
    """What there is of files that have not arrived whole. What a killed process left, and nobody takes up, goes."""
    found = sorted((place / UNFINISHED).rglob("*.incomplete"))
    for file in found:
        if re.search(ONLY_ONCE, file.name) and time.time() - file.stat().st_mtime > STALE:
            file.unlink(missing_ok=True)
    return [file for file in found if file.exists()]


def fetch(repository: str, revision: str, place: Path, files: list[Listed]) -> None:
    """Fetches the files, several at a time, with bars. ValueError for what does not arrive whole."""
    from huggingface_hub import snapshot_download

    with naming(repository, place, KEPT):
        names = [file.name for file in files]
        how = {"local_dir": place, "allow_patterns": names, "max_workers": AT_ONCE}
        snapshot_download(repository, revision=revision, **how)
    if short := [file.name for file in files if not is_there(place, file)]:
        raise ValueError(f"{', '.join(short)} did not arrive whole in {place}; give the command again to go on")


class naming:
    """Inside, what the hub or the network says becomes a ValueError with what to do. A full disk stays an OSError.

    state: what is said of what was fetched.
    """

    def __init__(self, repository: str, place: Path, state: str):
        self.repository, self.place, self.state = repository, place, state

    def __enter__(self) -> None:
        for name in ("httpx", "huggingface_hub"):  # they log every request and retry
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, kind, error: BaseException | None, trace) -> bool:
        known = type(error).__module__.partition(".")[0].rstrip("0123456789") in LIBRARIES
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or not (known or isinstance(error, (OSError, RuntimeError))):
            return False
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"{SITE}/{self.repository} could not be reached: {first or type(error).__name__}. {self.state}. "
            f"{by_hand(self.repository, self.place)}"
        ) from error


def by_hand(repository: str, place: Path) -> str:
    """What to do without this command."""
    return f"By hand: all but transformer_... of {SITE}/{repository}/tree/main into {place}"


def named(place: Path) -> str:
    """What --model calls the folder."""
    return place.name if place.parent in folders.search_folders() else str(place)


def total(files: list[Listed]) -> int:
    """Bytes."""
    return sum(file.size for file in files)


def gigabytes(count: int) -> str:
    """Bytes for people, as shops and the hub count them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
