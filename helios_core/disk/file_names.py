"""Names of files to write: one rule on every system, so that a workflow or a table that works here works anywhere.

What no system of the three takes is refused: NUL and other control characters, < > : " | ? *, a dot or a space at the
end, the names of devices, and more than 255 bytes. A backslash parts folders as a slash does.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST = 255  # bytes of one name in UTF-8, on every usual disk
REFUSED = '<>:"|?*'
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def check_name(name: str, *, ending: str = "") -> str:
    """The name. ValueError unless every system takes it for one file. ending: what will be put behind it."""
    strange = [c for c in name if c < " " or c == "\x7f" or c in REFUSED or "\ud800" <= c <= "\udfff"]
    if strange:
        raise ValueError(f"file name {shown(name)} holds {strange[0]!r}, which not every system takes; leave it out")
    if not name.strip(". ") or name[-1] in ". " or ending[-1:] in (".", " "):
        raise ValueError(f"file name {shown(name)}: wanted one that does not end in a dot or a space")
    if name.partition(".")[0].rstrip().lower() in DEVICES:
        raise ValueError(f"file name {shown(name)} is a device's on Windows; choose another")
    if (long := size(name + ending)) > MOST:
        raise ValueError(f"file name {shown(name)} is too long: {long} bytes, at most {MOST}; choose a shorter one")
    return name


def inside(folder: Path, name: str, *, ending: str = "") -> Path:
    """folder / name, where name may hold folders. ending: what will be put behind it.

    ValueError for a name that is empty, absolute, leads out of the folder, or that `check_name` refuses.
    """
    parts = re.split(r"[/\\]", name)
    if not name.strip(" .") or not parts[0] or not parts[-1] or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise ValueError(f"file name {shown(name)}: wanted one inside {folder}, without '..' and not absolute")
    parts = [part for part in parts if part not in ("", ".")]
    for part in parts[:-1]:
        check_name(part)
    check_name(parts[-1] if parts else name, ending=ending)
    return Path(folder, *parts)


def cut(stem: str, ending: str) -> str:
    """stem + ending, of the stem as much as a file's name has room for."""
    room = MOST - size(ending)
    return stem.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore") + ending


def size(name: str) -> int:
    """Bytes of a name on the disk."""
    return len(name.encode("utf-8", "surrogatepass"))


def plain(text: str) -> str:
    """The same without quotes where all of it can be seen."""
    return text if len(text) <= 80 and text.isprintable() else shown(text)


def shown(text: str) -> str:
    """A name or a value in a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= 80 else f"{text[:60]}...{text[-12:]}")
