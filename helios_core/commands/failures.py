"""What went wrong, in one message: what was being done, with which file, what came, what to do. The only place where
errors of libraries are caught without knowing which.

The pack's own errors are ValueErrors with a message for people. All else, of whatever library, is put into words here;
with HELIOS_DEBUG=1 the traceback is printed too.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path, PurePath
from typing import NamedTuple

DEBUG = "HELIOS_DEBUG"
PACK = Path(__file__).resolve().parents[2]
MOST, LONGEST = 400, 2000  # characters of a library's own words, and of a whole message
# What the pack's rooms do; the room nearest to the fault says what was being done.
DOING = {
    "backends": "computing",
    "checkpoint": "reading the weights",
    "commands": "preparing",
    "config": "reading the configuration",
    "control": "reading the control",
    "convert": "converting",
    "devices": "placing the model",
    "disk": "reading or writing a file",
    "drawn": "rendering",
    "generate.py": "making the video",
    "history": "remembering the chunks before",
    "join": "writing the video",
    "lora": "reading the LoRA",
    "measure": "measuring",
    "media": "reading a picture or video",
    "nodes": "running a node",
    "pipeline.py": "preparing the video",
    "steps": "sampling",
    "study": "running the study",
    "text": "reading the prompt",
    "training": "training",
    "ul": "running Unified Latents",
    "workflow": "running the workflow",
}
NO_MEMORY = (
    r"(?i)out of memory|can't allocate memory|unable to allocate|attempting to allocate|not enough memory|alloc_failed"
    r"|cannot allocate|bad_alloc|larger than the maximum allowed buffer"
)
FULL = r"(?i)no space left on device|\(os error (?:28|112)\)"  # in the words of libraries that raise no OSError
ASKED = r"(?i)(?:allocate|allocating)\D{0,20}?([\d.]+) ?([KMGT]iB|bytes)"
LESS = {
    "generate": "a smaller --width and --height, --vae-tiling on, --offload blocks or sequential, or a --weight-dtype "
    "of fewer bits (fp8_e4m3fn, int8, int4)",
    "run": "a smaller width and height, fewer videos at once, or in HeliosLoader vae_tiling on, offload blocks or "
    "sequential, or a weight_dtype of fewer bits",
    "probe-vae": "a smaller --tile",
    "bench": "a smaller --batch",
    "study": "--quick, or a smaller model",
    "train": "a smaller --batch or --size",
}


PASSED = (KeyboardInterrupt, SystemExit, GeneratorExit, BrokenPipeError)


class Failure(NamedTuple):
    """One message, and the exit code that goes with it: 2 for something wrong in what was asked, else 1."""

    text: str
    code: int


class caught:
    """`with caught(command) as failures`: what is raised inside goes no further, and stands in the list then.

    Ctrl-C, exits and a reader that has gone pass.
    """

    def __init__(self, command: str):
        self.command, self.found = command, []

    def __enter__(self) -> list[Failure]:
        return self.found

    def __exit__(self, kind, error: BaseException | None, trace) -> bool:
        if error is None or isinstance(error, PASSED):
            return False
        if os.environ.get(DEBUG, "") not in ("", "0"):
            traceback.print_exception(error)
        self.found.append(describe(error, self.command))
        return True


def describe(error: BaseException, command: str = "") -> Failure:
    """An error in words."""
    room, ours = _place(error)
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return Failure("a file's name holds a NUL character, which no file's name has", 2)
    if isinstance(error, UnicodeEncodeError):
        return Failure(f"{error.object[:40]!r} is no text in UTF-8; set the terminal or the file to UTF-8", 2)
    if type(error) is ValueError and ours:
        return Failure(str(error), 2)
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    doing = f"{DOING.get(room, 'working')}{where}"
    if no_memory(error):
        return Failure(_memory(error, doing, command), 1)
    if isinstance(error, OSError) and error.strerror:
        return Failure(_disk(error, doing), 1)
    if re.search(FULL, str(error)):
        return Failure(f"{doing} failed: No space left on device; make room on the disk", 1)
    said = _words(error)
    if isinstance(error, ImportError):
        return Failure(f"{doing} failed: {said}; a library is missing or broken, see `helios doctor`", 1)
    return Failure(f"{doing} failed, {said}. {DEBUG}=1 shows where", 1)


def no_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that memory ran out."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, (RuntimeError, ValueError)) and re.search(NO_MEMORY, str(error)) is not None)


def _memory(error: BaseException, doing: str, command: str) -> str:
    asked = re.search(ASKED, str(error))
    amount = f" ({_amount(*asked.groups())} more were asked for)" if asked else ""
    less = f"choose {LESS[command]}; or " if command in LESS else ""
    return f"memory ran out while {doing}{amount}; {less}close other programs"


def _amount(number: str, unit: str) -> str:
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    return f"{float(number) / 2**30:.1f} GiB" if float(number) >= 2**30 / 10 else f"{float(number) / 2**20:.0f} MiB"


def _disk(error: OSError, doing: str) -> str:
    name = error.filename if isinstance(error.filename, (str, PurePath)) else None
    place = f" {name}" if name and not str(name).endswith(".part") else ""
    advice = "; make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{doing}{place} failed: {error.strerror}{advice}"


def _words(error: BaseException) -> str:
    """Who said what: "torch says: ..."; the first line, and no more of it than people read."""
    module = type(error).__module__.partition(".")[0]
    who = _library(error) if module == "builtins" else module.removesuffix("_runtime")
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "nothing more")
    said = said.rstrip(".") if len(said) <= MOST else f"{said[:MOST]} ..."
    return f"{who} says: {said} ({type(error).__name__})"


def _frames(error: BaseException) -> list[Path]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(Path(trace.tb_frame.f_code.co_filename).resolve())  # the pack may be a link
        trace = trace.tb_next
    return frames


def _place(error: BaseException) -> tuple[str, bool]:
    """The pack's room nearest to the fault, and whether the pack itself raised it."""
    files = _frames(error)
    inside = [file.relative_to(PACK).parts for file in files if file.is_relative_to(PACK)]
    rooms = [parts[1] if parts[0] == "helios_core" else parts[0] for parts in inside if len(parts) > 1]
    return next((room for room in reversed(rooms) if room in DOING), ""), not files or files[-1].is_relative_to(PACK)


def _library(error: BaseException) -> str:
    """The package whose code raised it."""
    files = _frames(error)
    parts = files[-1].parts if files else ()
    if files and files[-1].is_relative_to(PACK):
        return "helios"
    return PurePath(parts[parts.index("site-packages") + 1]).stem if "site-packages" in parts[:-1] else "Python"


def tell(failure: Failure, command: str) -> int:
    """Prints the message on stderr; the exit code."""
    text = " ".join(failure.text.split("\n")).encode("utf-8", "backslashreplace").decode()
    text = text if len(text) <= LONGEST else f"{text[:1000]} ... {text[-300:]}"
    print(f"helios {command}: {text}", file=sys.stderr)
    return failure.code
