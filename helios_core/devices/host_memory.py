"""How much memory the host has and how much of it can still be had, the limits of containers included.

A control group of Linux may hold a process to less than the machine has, and so may every group that it lies in; the
least wins. A group's use counts the page cache of the files it read: what of it was not touched lately is given up
before anybody goes short, so it counts as free.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

GROUPS = "sys/fs/cgroup"
# The files of a group's folder by version of cgroups: limit, use, and the line of memory.stat for idle page cache.
FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class Memory(NamedTuple):
    """Bytes, None where nobody says. limited: the container's, which is less than the machine's."""

    total: int | None
    free: int | None
    limited: bool


class Group(NamedTuple):
    """A control group's limit, and what of it can still be had, in bytes."""

    limit: int
    free: int


def host_free() -> int | None:
    """Bytes of host memory that can still be had, the container's limit included; None where nobody says."""
    return read_memory().free


def read_memory(root: Path = Path("/")) -> Memory:
    """What there is for this process. root: where proc and sys are, for tests."""
    total, free = _machine()
    groups = [group for group in _groups(root) if total is None or group.limit < total]
    if not groups:
        return Memory(total, free, False)
    left = min(group.free for group in groups)
    return Memory(min(group.limit for group in groups), left if free is None else min(left, free), True)


def _machine() -> tuple[int | None, int | None]:
    """(all, what can still be had) of the machine: as psutil says, which ComfyUI brings, or the system's own files."""
    try:
        import psutil
    except ImportError:
        return _system()
    found = psutil.virtual_memory()
    return found.total, found.available


def _system(meminfo: Path = Path("/proc/meminfo")) -> tuple[int | None, int | None]:
    try:
        facts = dict(line.split(":") for line in meminfo.read_text().splitlines())
        total, free = (int(facts[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return total, free
    except (OSError, KeyError, ValueError):
        pass
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None, None
    return whole, whole  # what is in use is not known


def _groups(root: Path) -> Iterator[Group]:
    """Those that this process lies in and that have a limit, of either version of cgroups."""
    for version, mount, path in _memberships(root):
        inner = PurePosixPath(path)
        for folder in (inner, *inner.parents):  # in a container the path may be the machine's: what is there counts
            group = _group(mount / str(folder).lstrip("/"), *FILES[version])
            if group is not None:
                yield group


def _memberships(root: Path) -> Iterator[tuple[int, Path, str]]:
    """(version, where its groups are mounted, the path of this process's group there)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if "memory" in controllers.split(","):
            yield 1, root / GROUPS / "memory", path
        elif number == "0" and not controllers:
            yield 2, root / GROUPS, path


def _group(folder: Path, limit: str, used: str, idle: str) -> Group | None:
    """A group's folder; None if it has no limit, or is not there."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        taken = int((folder / used).read_text()) - _stat(folder / "memory.stat").get(idle, 0)
        return Group(int(most), int(most) - taken)
    except (OSError, ValueError):
        return None


def _stat(file: Path) -> dict[str, int]:
    """memory.stat: one name and number a line; empty where it cannot be read."""
    try:
        pairs = (line.split() for line in file.read_text().splitlines())
        return {name: int(value) for name, value in pairs}
    except (OSError, ValueError):
        return {}
