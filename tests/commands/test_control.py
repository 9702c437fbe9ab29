"""`helios generate --control`: what is asked of a clip before a model is loaded, and what it does."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.join import video
from support.clips import write as write_clip
from support.control import adapter


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter(tmp_path, load().config.transformer, name="own.safetensors")
    return tmp_path


def made(*options) -> np.ndarray:
    given = ["--prompt", "a red circle moving left", "--steps", "1,1,1", "--frames", "66", "--overwrite", *options]
    assert main(["generate", *given, "-o", "out.mp4"]) == 0
    return video.read_frames("out.mp4")


def test_a_clip_changes_the_chunks_that_it_is_for_and_strength_0_none(here):
    frames = np.zeros((40, 32, 48, 3), np.uint8)
    frames[:, 8:24, 8:24] = 255
    write_clip(here / "clip.mp4", frames)
    plain, given = made(), ["--control", "clip.mp4", "--control-adapter", "own.safetensors"]
    assert np.array_equal(made(*given, "--control-strength", "0"), plain)
    late = made(*given, "--control-chunks", "1-")
    assert np.array_equal(late[:33], plain[:33]) and not np.array_equal(late[33:], plain[33:])
    assert not np.array_equal(made(*given)[:33], plain[:33])
    assert video.read_metadata("out.mp4")["helios"]["control"] == "clip.mp4"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--control", "clip.mp4"], "20 frames; wanted at least 33, one chunk"),
        (["--control", "clip.mp4", "--control-adapter", "gone"], "no file 'gone', here or in models/controlnet"),
        (["--control", "clip.mp4", "--gpus", "2"], "--gpus"),
    ],
)
def test_refusals(here, capfd, options, says):
    write_clip(here / "clip.mp4", np.zeros((20, 32, 48, 3), np.uint8))
    assert main(["generate", "--prompt", "a", *options, "-o", "out.mp4"]) == 2
    assert says in capfd.readouterr().err and not (here / "out.mp4").exists()


def test_a_row_that_is_longer_than_frames_is_controlled_to_its_end(here):
    write_clip(here / "clip.mp4", np.full((66, 32, 48, 3), 255, np.uint8))
    (here / "rows.csv").write_text("prompt,frames,output\na red circle moving left,66,row.mp4\n", encoding="utf-8")
    given = ["--control", "clip.mp4", "--control-adapter", "own.safetensors"]
    wanted = made(*given)
    table = ["--prompts-file", "rows.csv", "--frames", "33", "--steps", "1,1,1", "-o", "all.mp4"]
    assert main(["generate", *table, *given]) == 0
    assert np.array_equal(video.read_frames("row.mp4"), wanted)


def test_a_control_that_acts_nowhere_is_told(here, capfd):
    write_clip(here / "clip.mp4", np.full((33, 32, 48, 3), 255, np.uint8))
    given = ["--control", "clip.mp4", "--control-adapter", "own.safetensors"]
    made(*given)
    assert "acts in no chunk" not in capfd.readouterr().err
    made(*given, "--control-chunks", "7")
    said = capfd.readouterr().err
    assert "acts in no chunk of this video, 0 to 1" in said and "--control-chunks 0-" in said
