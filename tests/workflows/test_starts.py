"""The workflows that start from a picture, a video or a saved run, through `helios run` with helios-tiny."""

from pathlib import Path

import av
import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.history import saved
from helios_video.helios_core.join import video

FOLDER = Path(pack.__file__).parent / "workflows"
SCENE = scenes.scene("red", "circle", "left", "striped")
OTHER = scenes.scene("blue", "square", "up", "plain")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("HELIOS_CACHE", "off")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A picture and a video of other sizes than helios-tiny's, under the workflows' names, and a second of each."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, clip, scene in (("example", "helios_example", SCENE), ("other", "other", OTHER)):
        frames = np.concatenate([scenes.draw(scene, 40)] * 2, axis=2)[:, :, 10:110]
        av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[0]), format="rgb24").save(str(folder / f"{name}.png"))
        video.write_video(folder / f"{clip}.mp4", frames, fps=12)
    return folder


def run(name, inputs, out, *sets):
    """Frames of the video that a workflow saves, and the paths it printed."""
    sets = ("DMDPyramidSample.steps=1,1,1", *sets)
    options = [part for text in sets for part in ("--set", text)]
    file = FOLDER / name
    assert main(["run", str(file), "--input-dir", str(inputs), "--output-dir", str(out), *options]) == 0
    (made,) = (out / "video").glob("*.mp4")
    return video.read_frames(made), made


@pytest.mark.parametrize("name", ["image_to_video.json", "api/image_to_video.json"])
def test_image_to_video(inputs, tmp_path, name):
    """66 frames; another picture gives other ones, the same one the same."""
    frames, made = run(name, inputs, tmp_path / "a")
    assert frames.shape == (66, 64, 64, 3) and video.probe(made).fps == 24
    if name.startswith("api"):
        return
    again = run(name, inputs, tmp_path / "b")[0]
    other = run(name, inputs, tmp_path / "c", "LoadImage.image=other.png")[0]
    assert np.array_equal(frames, again) and abs(frames.astype(int) - other).mean() > 1


def test_video_to_video(inputs, tmp_path):
    """The new frames only, at the old video's speed."""
    frames, made = run("video_to_video.json", inputs, tmp_path / "a")
    assert frames.shape == (66, 64, 64, 3) and video.probe(made).fps == 12
    other = run("video_to_video.json", inputs, tmp_path / "b", "LoadVideo.file=other.mp4")[0]
    assert abs(frames.astype(int) - other).mean() > 1


def test_video_to_video_brings_its_own_clip(tmp_path):
    frames, made = run("video_to_video.json", tmp_path / "empty", tmp_path / "a")
    assert frames.shape == (66, 64, 64, 3) and video.probe(made).fps == 24


def test_continue_video_equals_the_uninterrupted_run(inputs, tmp_path):
    """Saved after chunk 2 and loaded again in one run: the frames are text_to_video's, all 132."""
    frames, _ = run("continue_video.json", inputs, tmp_path / "a", "Seed.value=5")
    whole, _ = run("text_to_video.json", inputs, tmp_path / "b", "Seed.value=5")
    assert len(frames) == 132 and np.array_equal(frames, whole)
    (kept,) = (tmp_path / "a" / "helios").iterdir()
    assert saved.read_seed(kept) == 5


def test_a_run_is_continued_by_its_name(inputs, tmp_path, capsys):
    """As on another day: the file's name given in place of the wire; it lies in the input folder."""
    whole, _ = run("continue_video.json", inputs, tmp_path / "a", "Seed.value=5")
    (tmp_path / "a" / "helios" / "run_00001_.safetensors").rename(tmp_path / "mine.safetensors")
    frames, _ = run("continue_video.json", tmp_path, tmp_path / "b", "Go on.file=mine.safetensors", "Seed.value=8")
    assert np.array_equal(frames[66:], whole[66:]) and not np.array_equal(frames[:66], whole[:66])
    assert str(Path("helios") / "run_00001_.safetensors") in capsys.readouterr().out


@pytest.mark.parametrize(
    "name,change,words",
    [
        ("image_to_video.json", "LoadImage.image=gone.png", "no picture at"),
        ("video_to_video.json", "LoadVideo.file=gone.mp4", "no video at"),
    ],
)
def test_a_missing_file_is_named_before_anything_runs(tmp_path, capsys, name, change, words):
    places = ["--input-dir", str(tmp_path), "--output-dir", str(tmp_path)]
    assert main(["run", str(FOLDER / name), *places, "--set", change]) == 2
    assert words in capsys.readouterr().err


def test_names_out_of_the_folder_are_refused_before_anything_runs(tmp_path, capsys):
    for change in ("Save.filename_prefix=../run", "Go on.file=../run.safetensors", "Go on.file=none"):
        arguments = ["run", str(FOLDER / "continue_video.json"), "--output-dir", str(tmp_path), "--set", change]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "wanted one inside" in error or "no saved run 'none'" in error
    assert not list(tmp_path.iterdir())
