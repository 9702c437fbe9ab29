"""Files appear whole or not at all, outputs are tried before the work, and nobody else names files on the way."""

import ast
import os
import stat
import sys
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.disk import safe_files
from helios_video.helios_core.disk.safe_files import (
    check_folder,
    check_writable,
    free_name,
    identity,
    new_folder,
    replacing,
    write,
)


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end(old):
    with replacing(old) as part:
        part.write_text("new")
        assert old.read_text() == "old" and part.parent == old.parent
    assert old.read_text() == "new" and names(old.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [ValueError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_a_failure_the_old_file_is_there_and_nothing_else(old, failure):
    with pytest.raises(type(failure)), replacing(old) as part:
        part.write_text("half")
        raise failure
    assert old.read_text() == "old" and names(old.parent) == ["a.txt"]


def test_a_disk_that_tells_at_the_end_that_it_is_full_leaves_the_old_file(old, monkeypatch):
    """Some do so only when a file is flushed; nothing is replaced before."""

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as failed:
        write(old, "new")
    assert failed.value.filename == str(old)  # which the error itself does not know
    assert old.read_text() == "old" and names(old.parent) == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(old):
    """Each has a name with its process and a random part; the last to end wins, whole."""
    with replacing(old) as first:
        first.write_text("first, and longer")
        with replacing(old) as second:
            second.write_text("second")
        assert old.read_text() == "second"
    assert old.read_text() == "first, and longer" and names(old.parent) == ["a.txt"]
    assert first != second and all(f".{os.getpid()}." in path.name for path in (first, second))
    assert first.suffix == ".part", "no loader lists it, no folder's summary counts it"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_permissions_are_those_of_the_file_before_or_of_any_new_file(old):
    """Whatever a writer made of the part: safetensors writes for the owner only."""
    old.chmod(0o664)
    plain = old.with_name("plain")
    plain.touch()
    for path, mode in ((old, 0o664), (old.with_name("new"), stat.S_IMODE(plain.stat().st_mode))):
        with replacing(path) as part:
            part.chmod(0o600)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_one(old, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(old)
    with replacing(link) as part:
        assert part.parent == old.parent
        part.write_text("new")
    assert link.is_symlink() and old.read_text() == "new"


def test_what_may_not_be_replaced_is_not_even_when_it_comes_meanwhile(old, tmp_path):
    with pytest.raises(ValueError, match="exists already; nothing is overwritten"), replacing(old, overwrite=False):
        pytest.fail("it was there before")
    path = tmp_path / "b.txt"
    with pytest.raises(ValueError, match="exists already"), replacing(path, overwrite=False) as part:
        part.write_text("mine")
        path.write_text("somebody's")
    assert path.read_text() == "somebody's" and old.read_text() == "old" and names(tmp_path) == ["a.txt", "b.txt"]
    with replacing(tmp_path / "c.txt", overwrite=False) as part:
        part.write_text("new")
    assert (tmp_path / "c.txt").read_text() == "new"


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write(tmp_path / "a", "\u00e4\nb\r\n")
    write(str(tmp_path / "b"), b"\0\n")
    assert (tmp_path / "a").read_bytes() == "\u00e4\nb\r\n".encode() and (tmp_path / "b").read_bytes() == b"\0\n"


def test_folders_appear_whole_or_not_at_all(old, tmp_path):
    with new_folder(tmp_path / "deep" / "folder") as part:
        (part / "in").mkdir()
        (part / "in" / "file").touch()
        assert not (tmp_path / "deep" / "folder").exists()
    assert names(tmp_path / "deep") == ["folder"] and (tmp_path / "deep" / "folder" / "in" / "file").is_file()
    with pytest.raises(OSError), new_folder(tmp_path / "other") as part:
        (part / "file").touch()
        raise OSError(28, "full")
    for path in (old, tmp_path / "deep"):
        with pytest.raises(ValueError, match="exists already"), new_folder(path):
            pytest.fail("it was there before")
    assert names(tmp_path) == ["a.txt", "deep"]


def test_what_cannot_be_written_is_said_before_the_work(old, tmp_path):
    (tmp_path / "folder").mkdir()
    for path, says in (
        (tmp_path / "folder", "it is a folder; name a file in it"),
        (tmp_path / "none" / "a", "not an existing folder; create it first"),
        (old / "a", "not an existing folder"),
        (tmp_path / ("x" * 300), "its name is too long, 300 bytes; choose a shorter one"),
    ):
        with pytest.raises(ValueError, match=f"(?i)cannot write .*{says}"):
            check_writable(path)
    assert check_writable(str(old)) == old and check_writable(tmp_path / "new") == tmp_path / "new"
    assert old.read_text() == "old" and names(tmp_path) == ["a.txt", "folder"]


def test_folders_that_take_no_files_are_said_before_the_work(old, tmp_path, monkeypatch):
    """Tried by making them, of which nothing stays."""
    assert check_folder(tmp_path / "x" / "y") == tmp_path / "x" / "y" and check_folder(str(tmp_path)) == tmp_path
    for folder in (old, old / "x", tmp_path / "x" / ("y" * 300)):
        with pytest.raises(ValueError, match="cannot write into .*; choose a(nother place| shorter one)"):
            check_folder(folder)
    real = Path.open

    def refused(self, *rest, **more):
        if ".part" in self.name:
            raise PermissionError(13, "Permission denied")
        return real(self, *rest, **more)

    monkeypatch.setattr(Path, "open", refused)
    for folder in (tmp_path, tmp_path / "x" / "y"):
        with pytest.raises(ValueError, match="Permission denied"):
            check_folder(folder)
    with pytest.raises(ValueError, match="Permission denied"):
        check_writable(tmp_path / "new")
    assert names(tmp_path) == ["a.txt"]


def test_free_names_are_counted_from_2(old):
    assert free_name(old.with_name("b.txt")).name == "b.txt"
    assert free_name(old).name == "a_2.txt"
    old.with_name("a_2.txt").mkdir()
    assert free_name(old).name == "a_3.txt"


def test_one_file_is_one_by_whatever_path(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.link(old, tmp_path / "hard")
    assert identity(old) == identity("a.txt") == identity(f"../{tmp_path.name}/a.txt") == identity("hard")
    assert identity("none") is identity("x\0y") is None and identity(tmp_path) not in (None, identity(old))
    if sys.platform != "win32":
        (tmp_path / "soft").symlink_to(old)
        assert identity("soft") == identity(old)


def test_nobody_else_names_files_on_the_way():
    """Segments of a video are another matter: a crash keeps them, under a name that players know."""
    root, found = Path(pack.__file__).parent, []
    for path in [*(root / "helios_core").rglob("*.py"), *(root / "nodes").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        quiet = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}  # docstrings
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        if any(n.value.endswith((".part", ".part.mp4", ".partial", ".tmp")) for n in texts if id(n) not in quiet):
            found.append(path.relative_to(root / "helios_core").as_posix())
    look = ["commands/failures.py", "disk/journal.py", "disk/store.py"]  # they know such files, and make none
    assert sorted(found) == sorted(["join/clip.py", "disk/safe_files.py", *look])
