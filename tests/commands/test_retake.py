"""`helios retake`, `takes` and `generate --timeline` on helios-tiny: what is sampled, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.join import video
from helios_video.helios_core.pipeline import Helios

PROMPT = "a red circle moving left"
PLAIN = ["generate", "--prompt", PROMPT, "--frames", "99", "--steps", "1,1,1", "--seed", "2"]


@pytest.fixture
def sampled(monkeypatch, tmp_path):
    """The chunks that were sampled, by number; a cache and a folder of the test's own."""
    made, own = [], Helios._steps
    monkeypatch.setattr(Helios, "_steps", lambda self, plan, *rest: made.append(plan.chunk) or own(self, plan, *rest))
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return made


def taken(sampled) -> list[int]:
    """The chunks sampled since the last call."""
    found = sampled[:]
    sampled.clear()
    return found


def test_a_retake_samples_from_its_chunk_on_and_is_listed(sampled, capsys):
    assert main(PLAIN) == 0 and taken(sampled) == [0, 1, 2]
    assert main(["retake", "helios.mp4", "--from", "2", "--seed", "9"]) == 0 and taken(sampled) == [2]
    one, two = video.read_frames("helios.mp4"), video.read_frames("helios_2.mp4")
    assert np.array_equal(one[:66], two[:66]) and not np.array_equal(one[66:], two[66:])
    made = ["--from", "1", "--prompt", "a blue square; up", "--cut", "-o", "other.mp4"]
    assert main(["retake", "helios_2.mp4", *made]) == 0 and taken(sampled) == [1, 2]
    capsys.readouterr()
    assert main(["takes", "other.mp4"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"helios.mp4: 0: {PROMPT}",
        "helios_2.mp4: helios.mp4 from chunk 2 on: 2 [seed 9]:",
        r"other.mp4: helios_2.mp4 from chunk 1 on: 1 [cut]: a blue square\; up",
    ]
    score = video.read_metadata("other.mp4")["helios"]["score"]
    Path("score.txt").write_text(score)
    again = ["generate", "--timeline", "score.txt", "--frames", "99", "--steps", "1,1,1", "--seed", "2"]
    assert main([*again, "-o", "again.mp4"]) == 0 and taken(sampled) == []
    assert np.array_equal(video.read_frames("other.mp4"), video.read_frames("again.mp4"))


def test_without_a_cache_a_retake_samples_all_and_is_the_same(sampled, monkeypatch):
    assert main(PLAIN) == 0 and main(["retake", "helios.mp4", "--from", "2", "--seed", "9", "-o", "kept.mp4"]) == 0
    taken(sampled)
    monkeypatch.setenv("HELIOS_CACHE", "off")
    assert main(["retake", "helios.mp4", "--from", "2", "--seed", "9", "-o", "anew.mp4"]) == 0
    assert taken(sampled) == [0, 1, 2]
    assert np.array_equal(video.read_frames("kept.mp4"), video.read_frames("anew.mp4"))


def test_chunks_are_counted_as_they_were_made(sampled, capsys):
    """By a frame less each with --drop-first-frame; from a saved run's next one where it was gone on with."""
    assert main([*PLAIN, "--frames", "66", "--drop-first-frame", "-o", "less.mp4"]) == 0 and len(taken(sampled)) == 3
    assert main(["retake", "less.mp4", "--from", "2", "--seed", "9"]) == 0 and taken(sampled) == [2]
    assert "--overwrite" not in capsys.readouterr().err  # which a retake does not have
    short, run = ["--frames", "66"], ["--save-history", "run.safetensors"]
    assert main([*PLAIN, *short, *run, "-o", "first.mp4"]) == 0
    assert main([*PLAIN, *short, "--resume", "run.safetensors", "-o", "second.mp4"]) == 0
    assert taken(sampled)[-1] == 3
    assert main(["retake", "second.mp4", "--from", "1", "--seed", "9"]) == 2
    assert "second.mp4 has the chunks 2 to 3" in capsys.readouterr().err
    assert main(["retake", "second.mp4", "--from", "3", "--seed", "9"]) == 0 and taken(sampled) == [3]
    one, two = video.read_frames("second.mp4"), video.read_frames("second_2.mp4")
    assert np.array_equal(one[:33], two[:33]) and not np.array_equal(one[33:], two[33:])
    assert main([*PLAIN, *short, "--resume", "run.safetensors", *run, "-o", "third.mp4"]) == 0
    assert main(["retake", "second.mp4", "--from", "3", "--seed", "8"]) == 2
    assert "from chunk 2, but that is at chunk 4 by now" in capsys.readouterr().err


def test_takes_of_each_other_are_listed_and_what_is_no_name_is_passed_over(tmp_path, monkeypatch, capsys):
    """Anybody may write into a file."""
    monkeypatch.chdir(tmp_path)
    for name, of in (("a.mp4", "b.mp4"), ("b.mp4", "a.mp4"), ("c.mp4", ["a.mp4"])):
        about = {"helios": {"prompt": PROMPT, "take_of": of, "take_from": 0}}
        video.write_video(name, np.zeros((33, 64, 64, 3), np.uint8), metadata=about)
    assert main(["takes", "a.mp4"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a.mp4", "b.mp4"]
    assert main(["takes", "c.mp4"]) == 0
    assert capsys.readouterr().out == f"c.mp4: 0: {PROMPT}\n"


def test_takes_needs_no_ending_and_passes_over_scores_that_are_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    take = {"take_of": "a.MP4", "take_from": 0}
    files = {"a.MP4": {"prompt": PROMPT}, "bad.mp4": {"score": "garbage", **take}, "b.mp4": {"prompt": "a", **take}}
    files["odd.mp4"] = {"prompt": "a", "timeline": 7}
    for name, about in files.items():
        video.write_video(name, np.zeros((33, 64, 64, 3), np.uint8), metadata={"helios": about})
    assert main(["takes", "a.MP4"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a.MP4", "b.mp4"]
    for line in (["takes", "bad.mp4"], ["retake", "odd.mp4", "--from", "0", "--seed", "1"]):
        assert main(line) == 2
    said = capsys.readouterr().err
    assert "'garbage' does not begin with a chunk" in said and "its timeline is 7" in said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["retake", "helios.mp4", "--from", "1"], "needs something that is different: --seed"),
        (["retake", "helios.mp4", "--from", "3", "--seed", "1"], "--from 3: helios.mp4 has the chunks 0 to 2"),
        (["retake", "helios.mp4", "--from", "0", "--prompt", PROMPT], "chunk 0 of helios.mp4 is made so already"),
        (["retake", "helios.mp4", "--from", "1", "--seed", "0"], "chunk 1 of helios.mp4 is made so already"),
        (["retake", "helios.mp4", "--from", "1", "--prompt", PROMPT], "chunk 1 of helios.mp4 is made so already"),
        (["retake", "helios.mp4", "--from", "1", "--prompt", " "], "--prompt: the prompt is empty"),
        (["retake", "helios.mp4", "--from", "1", "--seed", "-1"], "seed '-1': wanted a whole number"),
        (["retake", "bare.mp4", "--from", "1", "--seed", "1"], "bare.mp4 does not say how it was made"),
        (["takes", "bare.mp4"], "bare.mp4 does not say how it was made"),
        (["generate", "--timeline", "none.txt"], "--timeline none.txt: No such file"),
        (["generate", "--timeline", "bytes.txt"], "this is no text in UTF-8"),
        (["generate", "--timeline", "cat.txt"], "names the picture 'cat.png', which is not in"),
        (["generate", "--timeline", "drift.txt"], "no policy is chosen"),
        (["generate", "--timeline", "drift.txt", "--prompt", "a"], "--prompt: not allowed with argument --timeline"),
    ],
)
def test_what_cannot_be_says_why(sampled, tmp_path, capsys, line, says):
    about = {"helios": {"prompt": PROMPT, "seed": 0}}
    video.write_video("helios.mp4", np.zeros((99, 64, 64, 3), np.uint8), metadata=about)
    video.write_video("bare.mp4", np.zeros((33, 64, 64, 3), np.uint8))
    (tmp_path / "bytes.txt").write_bytes(b"0: \xff")
    (tmp_path / "cat.txt").write_text("0 [image cat.png 1]: a")
    (tmp_path / "drift.txt").write_text("0 [drift 1]: a")
    try:
        code = main(line)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and says in capsys.readouterr().err and not sampled


def test_what_a_file_says_is_checked_as_options_are(sampled, capsys):
    """A file may come from anybody: no place to write to is taken from it, and no option that there is not."""
    about = {"prompt": PROMPT, "seed": 0, "steps": "1,1,1", "frames": 33, "output": "evil.mp4", "overwrite": True}
    about |= {"save_history": "evil.safetensors", "command": "train", "threads": 99}
    video.write_video("helios.mp4", np.zeros((33, 64, 64, 3), np.uint8), metadata={"helios": about})
    assert main(["retake", "helios.mp4", "--from", "0", "--seed", "1"]) == 0
    assert not list(Path().glob("evil*"))
    for name, value in {"solver": "magic", "frames": "many", "cfg": [1, "x"]}.items():
        video.write_video("bad.mp4", np.zeros((33, 8, 8, 3), np.uint8), metadata={"helios": {**about, name: value}})
        assert main(["retake", "bad.mp4", "--from", "0", "--seed", "1"]) == 2
        said = capsys.readouterr().err
        assert "bad.mp4 says that it was made with settings that" in said and "invalid" in said and f"--{name}" in said


def test_a_retake_finds_the_pictures_of_its_score_from_elsewhere(sampled, tmp_path, monkeypatch, capsys):
    from PIL import Image

    (tmp_path / "scene").mkdir()
    Image.new("RGB", (64, 64), (0, 0, 200)).save(tmp_path / "scene" / "cat.png")
    (tmp_path / "scene" / "score.txt").write_text(f"0: {PROMPT}\n1 [image cat.png 0.5]:")
    line = ["generate", "--timeline", "scene/score.txt", "--frames", "66", "--steps", "1,1,1", "-o", "film.mp4"]
    assert main(line) == 0 and taken(sampled) == [0, 1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["retake", "../film.mp4", "--from", "1", "--seed", "9"]) == 0 and taken(sampled) == [1]
    (tmp_path / "scene" / "cat.png").unlink()
    assert main(["retake", "../film.mp4", "--from", "1", "--seed", "8"]) == 2
    assert "the picture 'cat.png', which is not in scene or ../scene or .." in capsys.readouterr().err
