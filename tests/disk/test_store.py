"""Finished work on disk: whole or not at all, found by content, bounded, and never the reason for an error."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helios_video.helios_core.disk import store
from helios_video.helios_core.disk.store import Store, digest, fingerprint


@dataclass
class Thing:
    name: str
    values: object


def test_a_digest_is_of_the_content():
    a = np.arange(6, dtype=np.float32)
    same = [digest(x) for x in (a, a.copy(), torch.from_numpy(a), torch.arange(6.0, requires_grad=True))]
    others = [digest(x) for x in (a.reshape(2, 3), a.astype(np.float64), a + 1, a[:5], [a], Thing("a", a), "a", None)]
    assert len(set(same)) == 1 and len({*same, *others}) == 1 + len(others)
    assert digest("ab", "c") != digest("a", "bc") and digest(["a"], "b") != digest(["a", "b"])
    assert digest({"x": 1}) != digest({"y": 1}) and digest(1) != digest("1") and digest(True) != digest(1)
    assert digest(Thing("a", [a])) == digest(Thing("a", [a.copy()])) != digest(Thing("b", [a]))


def test_what_is_kept_is_found_with_its_file(tmp_path):
    kept, source = Store(tmp_path / "s"), tmp_path / "x.mp4"
    source.write_bytes(b"film")
    assert kept.arrays("k") is None and kept.file("k", ".mp4") is None and not kept.folder.exists()
    kept.keep("k", {"z": np.ones(3, np.float32)}, source)
    source.unlink()
    assert np.array_equal(kept.arrays("k")["z"], np.ones(3)) and kept.file("k", ".mp4").read_bytes() == b"film"


def test_a_broken_entry_counts_as_missing(tmp_path):
    kept = Store(tmp_path)
    for spoil in (lambda b: b[:-3], lambda b: b"", lambda b: b"x" * 40):
        kept.keep("k", {"z": np.ones(30)})
        path = tmp_path / "k.safetensors"
        path.write_bytes(spoil(path.read_bytes()))
        assert kept.arrays("k") is None


def test_the_least_recently_used_go_first(tmp_path):
    kept = Store(tmp_path)
    for i, key in enumerate("abc"):
        kept.keep(key, {"z": np.zeros(100, np.uint8)})
        os.utime(tmp_path / f"{key}.safetensors", (1000 + i, 1000 + i))
    size = (tmp_path / "a.safetensors").stat().st_size
    assert kept.arrays("a") is not None  # used again, now the newest
    Store(tmp_path, 3 * size).keep("d", {"z": np.zeros(100, np.uint8)})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]
    Store(tmp_path, size - 1).keep("e", {"z": np.zeros(100, np.uint8)})
    assert not (tmp_path / "e.safetensors").exists(), "more than all that may be kept"


def test_leftovers_of_killed_processes_are_cleared(tmp_path):
    old, young = tmp_path / "a.1.ff.part", tmp_path / "b.1.ff.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * store.STALE,) * 2)
    Store(tmp_path).keep("k", {"z": np.zeros(1)})
    assert not old.exists() and young.exists()


def test_a_disk_that_fails_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    kept = Store(tmp_path / "file" / "s")
    kept.keep("k", {"z": np.zeros(1)})
    assert "not kept" in caplog.text and kept.arrays("k") is None
    kept.keep("l", {"x": np.zeros(2, np.float32)})
    assert len(caplog.records) == 1
    kept = Store(tmp_path / "s")
    kept.keep("k", {"z": np.zeros(1)}, tmp_path / "gone.mp4")
    assert kept.arrays("k") is None, "an entry without its file is none"


def test_where_the_disk_allows_no_second_name_a_copy_does(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(store.os, "link", refuse)
    (tmp_path / "x.mp4").write_bytes(b"film")
    kept = Store(tmp_path / "s")
    kept.keep("k", {}, tmp_path / "x.mp4")
    assert kept.file("k", ".mp4").read_bytes() == b"film"


@pytest.mark.parametrize("place", [10, 500_000, 999_990])
def test_files_of_one_name_size_and_time_differ_by_their_bytes(place, tmp_path):
    """Checkpoints of one architecture in an image whose files all have one time."""
    found = []
    for folder, value in (("base", 1), ("distilled", 2)):
        data = bytearray(1_000_000)
        data[place] = value
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.safetensors").write_bytes(data)
        os.utime(tmp_path / folder / "x.safetensors", (1, 1))
        found.append(fingerprint(tmp_path / folder / "x.safetensors"))
    assert found[0] != found[1]


@pytest.mark.parametrize("change", ["size", "time"])
def test_the_fingerprint_follows_the_files(tmp_path, change):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"12")
    before = fingerprint(file)
    file.write_bytes(b"123" if change == "size" else b"21")
    os.utime(file, (5, 5))
    assert fingerprint(file) != before


def test_a_store_that_can_only_be_read_serves(tmp_path, monkeypatch):
    kept = Store(tmp_path)
    kept.keep("k", {"z": np.ones(3)})

    def refuse(*_):
        raise PermissionError("read only")

    monkeypatch.setattr(store.os, "utime", refuse)
    assert np.array_equal(kept.arrays("k")["z"], np.ones(3))


def test_a_file_that_is_open_elsewhere_stays_and_others_go(tmp_path, monkeypatch, caplog):
    """Windows removes no file that somebody has open."""
    kept, real = Store(tmp_path), Path.unlink
    for i, key in enumerate("abc"):
        kept.keep(key, {"z": np.zeros(100, np.uint8)})
        os.utime(tmp_path / f"{key}.safetensors", (1000 + i, 1000 + i))

    def unlink(path, *more, **given):
        if path.stem == "a":
            raise PermissionError("in use")
        real(path, *more, **given)

    monkeypatch.setattr(Path, "unlink", unlink)
    size = (tmp_path / "a.safetensors").stat().st_size
    Store(tmp_path, 2 * size).keep("d", {"z": np.zeros(100, np.uint8)})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "d"] and not caplog.text
