"""A run's journal: what it lists counts, and nothing else; whose its folder is."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
from helios_video.helios_core.disk import Journal, Store, fingerprint, journal, owned
from helios_video.helios_core.disk.journal import FILE

SETTINGS = {"prompt": "a", "seed": 0}
NUMBERS = count()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "out_chunks"


def begin(root, settings=SETTINGS, **more):
    return Journal.begin(root, settings, ["generate"], **more)


def add(made, key, name="chunk_0000.mp4"):
    path = made.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"film")
    made.keep(key, {"a": np.full(3, 7)}, path)
    return path


def test_what_is_listed_is_found_again_and_the_rest_is_made_anew(root):
    first = begin(root)
    path = add(first, "one")
    add(first, "two", "clip 1/chunk_0001.mp4")
    first.keep("latent", {"latent": np.ones(2)})
    for name in ("chunk_0002.mp4", "chunk_0003.part.mp4", "clip 1/chunk_0001_1.mp4", "entries/x.1.part"):
        (root / name).write_bytes(b"never listed")
    left = first.close()
    assert left.startswith("4 finished chunks are in ") and left.endswith(f"go on with: helios resume {root}")
    again = begin(root)
    assert again.went_on == 2 and again.file("one", ".mp4") == path and again.file("three", ".mp4") is None
    assert again.arrays("one")["a"].tolist() == [7, 7, 7] and again.arrays("latent")["latent"].sum() == 2
    assert sorted(p.name for p in root.rglob("*.mp4")) == ["chunk_0000.mp4", "chunk_0001.mp4"]
    assert not list(root.rglob("*.part"))
    again.finish()
    assert not root.exists() and again.close() == ""


def test_a_line_that_was_cut_never_came_to_be(root):
    first = begin(root)
    add(first, "one")
    add(first, "two", "chunk_0001.mp4")
    first.close()
    text = (root / FILE).read_bytes()
    (root / FILE).write_bytes(text[:-5])
    again = begin(root)
    assert list(again.listed) == ["one"] and not (root / "chunk_0001.mp4").exists()
    add(again, "two", "chunk_0001.mp4")
    again.close()
    assert begin(root).went_on == 2


def test_a_folder_belongs_to_one_live_run(root):
    first = begin(root)
    for settings in (SETTINGS, {}):
        with pytest.raises(ValueError, match="another run is at work in .*out_chunks; wait for it, or name another"):
            begin(root, settings)
    assert not journal.clear_away(root)
    add(first, "one")
    first.close()
    assert begin(root).went_on == 1


def test_other_settings_are_refused_by_name_once_there_is_something_to_lose(root):
    begin(root, {"seed": 1}).close()
    first = begin(root)
    add(first, "one")
    first.close()
    many = {name: 0 for name in "abcdefgh"}
    for settings, says in (
        ({"prompt": "a", "seed": 3}, "seed was 0, is 3. Go on"),
        ({"prompt": "a"}, "seed was 0, is not given. Go on"),
        ({**SETTINGS, **many}, "e was not given, is 0; and 3 more"),
        ({"prompt": "b" * 200, "seed": 0}, r'prompt was "a", is "b+ \.\.\. b+". Go on'),
    ):
        with pytest.raises(ValueError, match=says):
            begin(root, settings)
    assert begin(root, dict(reversed(SETTINGS.items()))).went_on == 1


def test_a_folder_of_something_else_is_let_alone(root):
    root.mkdir()
    (root / "mine.txt").touch()
    made = begin(root)
    assert made.root.name == "out_chunks_2"
    made.close()
    assert [p.name for p in root.parent.iterdir()] == ["out_chunks"], "a run that made nothing leaves nothing"
    (root / "mine.txt").unlink()
    assert begin(root).root == root, "one that was killed at once leaves it empty"


@pytest.mark.parametrize("text", ["", "{}", "[]\n", '{"format": "helios-run"}\n', "\0\0\0", '{"format": "other"}\n'])
def test_no_journal_is_refused_with_what_to_do(root, text):
    root.mkdir()
    (root / FILE).write_text(text)
    with pytest.raises(ValueError, match="is no journal of a run that can be read; remove the folder"):
        begin(root)
    with pytest.raises(ValueError, match="no journal"):
        journal.read_head(root)


def test_a_newer_journal_is_refused(root):
    begin(root)
    head = json.loads((root / FILE).read_text())
    (root / FILE).write_text(json.dumps({**head, "version": 2}) + "\n")
    with pytest.raises(ValueError, match="another version of this pack"):
        journal.read_head(root)


@pytest.mark.parametrize(
    "line",
    [{"made": "x", "file": "../mine.mp4"}, {"made": "x"}, {"made": 1, "file": "a.mp4"}, {"output": "a"}, {"made": []}],
    ids=str,
)
def test_lines_that_no_run_wrote_count_for_nothing(root, line):
    (root.parent / "mine.mp4").touch()
    begin(root).keep("a", {})
    root_text = (root / FILE).read_text()
    (root / FILE).write_text(root_text + json.dumps(line) + "\n")
    made = Journal(root, None, {})
    made._read_lines()
    assert not made.listed and not made.outputs


def test_files_written_elsewhere_are_written_there_again_but_never_over_anothers(root, tmp_path):
    made, path = begin(root), tmp_path / "out_00001_.mp4"
    made.writes("node 3 file 1", path)
    ours = lambda path: path.read_text() == "ours"  # noqa: E731
    assert made.written("node 3 file 1", ours) == path and made.written("node 4 file 1", ours) is None
    path.write_text("ours")
    assert made.written("node 3 file 1", ours) == path, "written, and killed before it was noted"
    path.write_text("another's")
    assert made.written("node 3 file 1", ours) is None
    made.writes("node 3 file 1", path, fingerprint(path))
    assert made.written("node 3 file 1", ours) == path
    path.write_text("changed since")
    assert made.written("node 3 file 1", ours) is None


def test_a_store_behind_it_is_asked_and_given_too(root, tmp_path):
    behind = Store(tmp_path / "store")
    made = begin(root, behind=behind)
    path = add(made, "one")
    made.finish()
    again = begin(root, behind=behind)
    assert again.arrays("one")["a"].tolist() == [7, 7, 7] and again.file("one", ".mp4") == behind.folder / "one.mp4"
    assert not path.exists()


def test_what_a_run_left_that_was_killed_as_it_ended_is_cleared_away(root):
    root.mkdir()
    (root / owned.LOCK).touch()
    lock = owned.take(root)
    journal.clear_rest(root)
    assert root.is_dir(), "the run is alive"
    lock.close()
    (root / "mine.txt").touch()
    journal.clear_rest(root)
    assert (root / "mine.txt").is_file()
    (root / "mine.txt").unlink()
    journal.clear_rest(root)
    assert not root.exists()
