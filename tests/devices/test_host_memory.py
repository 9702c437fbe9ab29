"""How much memory the host has: the least of the machine's and of the control groups', of both versions, nested."""

from __future__ import annotations

import sys

import pytest
from helios_video.helios_core.devices import host_memory as module
from helios_video.helios_core.devices.host_memory import Memory, read_memory

GIB = 2**30
FREE = "9223372036854771712"  # version 1's word for no limit


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(module, "_machine", lambda: (64 * GIB, 40 * GIB))


def write(root, files: dict[str, str]):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


def v2(folder: str, limit, used, **stat) -> dict[str, str]:
    lines = "".join(f"{name} {value}\n" for name, value in stat.items())
    inside = {"memory.max": limit, "memory.current": used, "memory.stat": lines}
    return {f"sys/fs/cgroup/{folder}{name}": text for name, text in inside.items()}


def v1(folder: str, limit, used, **stat) -> dict[str, str]:
    lines = "".join(f"{name} {value}\n" for name, value in stat.items())
    inside = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": lines}
    return {f"sys/fs/cgroup/memory/{folder}{name}": text for name, text in inside.items()}


def test_without_groups_it_is_the_machine(tmp_path):
    assert read_memory(tmp_path) == Memory(64 * GIB, 40 * GIB, False)


def test_page_cache_that_lies_idle_counts_as_free(tmp_path):
    """Files read before count as used: a container of 8 GiB with 6 of them in the page cache seemed to have 1 left."""
    files = {"proc/self/cgroup": "0::/\n", **v2("", 8 * GIB, 7 * GIB, anon=GIB, inactive_file=6 * GIB, active_file=5)}
    assert read_memory(write(tmp_path, files)) == Memory(8 * GIB, 7 * GIB, True)


def test_the_least_of_nested_groups_wins(tmp_path):
    files = {"proc/self/cgroup": "0::/user.slice/run.scope\n", **v2("user.slice/run.scope/", "max", 3 * GIB)}
    files |= v2("user.slice/", 16 * GIB, 15 * GIB, inactive_file=2 * GIB) | v2("", "max", 20 * GIB)
    assert read_memory(write(tmp_path, files)) == Memory(16 * GIB, 3 * GIB, True)
    write(tmp_path, v2("user.slice/run.scope/", 4 * GIB, 3 * GIB))
    assert read_memory(tmp_path) == Memory(4 * GIB, GIB, True)


def test_the_first_version_of_groups(tmp_path):
    files = {"proc/self/cgroup": "12:cpu,memory:/docker/abc\n3:cpuset:/docker/abc\n0::/\n"}
    files |= v1("docker/abc/", 8 * GIB, 7 * GIB, total_inactive_file=5 * GIB) | v1("docker/", FREE, 9 * GIB)
    assert read_memory(write(tmp_path, files | v1("", FREE, 30 * GIB))) == Memory(8 * GIB, 6 * GIB, True)


def test_a_container_that_sees_the_machines_path_but_its_own_group(tmp_path):
    """Docker without namespaces for groups: the path is not there, the mount is the group itself."""
    files = {"proc/self/cgroup": "4:memory:/docker/abc\n", **v1("", 2 * GIB, GIB)}
    assert read_memory(write(tmp_path, files)) == Memory(2 * GIB, GIB, True)


def test_a_limit_above_the_machine_is_none(tmp_path):
    files = {"proc/self/cgroup": "0::/a\n", **v2("a/", 128 * GIB, GIB)}
    assert read_memory(write(tmp_path, files)) == Memory(64 * GIB, 40 * GIB, False)


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/gone\n", "4:memory:/gone\n"])
def test_what_cannot_be_read_is_no_limit(tmp_path, text):
    write(tmp_path, {"proc/self/cgroup": text, "sys/fs/cgroup/memory.max": "many", "sys/fs/cgroup/memory.current": "1"})
    assert not read_memory(tmp_path).limited


def test_a_machine_that_says_nothing_has_its_containers_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_machine", lambda: (None, None))
    files = {"proc/self/cgroup": "0::/\n", **v2("", 8 * GIB, 7 * GIB)}
    assert read_memory(write(tmp_path, files)) == Memory(8 * GIB, GIB, True)
    assert read_memory(tmp_path / "elsewhere") == Memory(None, None, False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_psutil_and_the_systems_files_agree(monkeypatch):
    monkeypatch.undo()
    psutil = pytest.importorskip("psutil")
    total, free = module._machine()
    assert total == psutil.virtual_memory().total
    monkeypatch.setitem(sys.modules, "psutil", None)  # not installed
    assert module._machine() == (total, pytest.approx(free, rel=0.2))


def test_without_any_of_them_the_memory_is_all_free_or_unknown(tmp_path, monkeypatch):
    total, free = module._system(tmp_path / "meminfo")
    assert total == free
    monkeypatch.delattr(module.os, "sysconf", raising=False)
    assert module._system(tmp_path / "meminfo") == (None, None)
