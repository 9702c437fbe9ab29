"""The stand-ins for ComfyUI's own nodes: pictures and videos go in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helios_video.helios_core import media
from helios_video.helios_core.join import video
from helios_video.helios_core.workflow.run import run
from helios_video.helios_core.workflow.standins import LoadImage, refusal
from PIL import Image
from support.clips import TURNS, corners, numbered, numbers, tone, turn, uneven, write


def test_pictures_and_videos_go_in_and_out(tmp_path):
    """LoadVideo -> GetVideoComponents -> CreateVideo -> SaveVideo: the frames come out again, the workflow inside."""
    frames = np.zeros((6, 32, 48, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    video.write_video(tmp_path / "in.mp4", frames, fps=12)
    source = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "in.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": ["2", 2]}},
        "4": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["3", 0], "filename_prefix": "video/x", "format": "auto", "codec": "auto"},
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(source))
    out = tmp_path / "out"
    result = run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path)
    assert result.files == [out / "video" / "x_00001_.mp4"] and result.texts == {"PreviewAny": "12.0"}
    assert np.abs(video.read_frames(result.files[0]).astype(int) - frames).max() <= 4
    assert video.probe(result.files[0]).fps == 12
    assert video.read_metadata(result.files[0])["prompt"]["1"]["class_type"] == "LoadVideo"
    assert run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path).files == [out / "video" / "x_00002_.mp4"]
    assert [p.name for p in out.iterdir()] == ["video"], "files on the way are left behind"
    with pytest.raises(ValueError, match="no video at .*gone.mp4"):
        run(tmp_path / "flow.json", {}, {"LoadVideo.file": "gone.mp4"}, output_dir=out, input_dir=tmp_path)
    with pytest.raises(ValueError, match="filename_prefix: file name '../x': wanted one inside"):
        run(tmp_path / "flow.json", {}, {"SaveVideo.filename_prefix": "../x"}, output_dir=out, input_dir=tmp_path)


SAVED = {"filename_prefix": "x", "format": "auto", "codec": "auto"}


def flow(folder, name, split):
    """The file that LoadVideo -> SaveVideo makes; split: through frames, sound and rate."""
    inner = {
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "audio": ["2", 1], "fps": ["2", 2]}},
    }
    source = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": name}},
        **(inner if split else {}),
        "4": {"class_type": "SaveVideo", "inputs": {"video": ["3" if split else "1", 0], **SAVED}},
    }
    (folder / "flow.json").write_text(json.dumps(source))
    return run(folder / "flow.json", {}, output_dir=folder / "out", input_dir=folder).files[0]


@pytest.mark.parametrize("split", [False, True])
def test_sound_rate_and_turning_go_through(tmp_path, split):
    """As a player shows and plays the clip, whether it is passed on or taken apart."""
    video.write_video(tmp_path / "sound.mp4", numbered(24), fps=12, sound=media.Sound(tone(2, start=1), 44100))
    made = flow(tmp_path, "sound.mp4", split)
    sound, _ = media.read_sound(made)
    assert media.probe(made).fps == 12 and numbers(media.read_frames(made)) == list(range(24))
    assert sound.rate == 44100 and np.abs(sound.samples[0, :40000]).max() < 0.05 < 0.3 < sound.samples[0, 50000:].max()
    for matrix in list(TURNS)[1:5]:
        made = flow(tmp_path, turn(write(tmp_path / "turned.mp4", corners()), matrix).name, split)
        shown = TURNS[matrix](corners(1)[0]).astype(int)
        assert np.quantile(np.abs(media.read_frames(made)[0] - shown), 0.75) <= 4


@pytest.mark.parametrize("split", [False, True])
def test_a_variable_rate_stays_in_time(tmp_path, split):
    times, wanted = uneven()
    made = flow(tmp_path, write(tmp_path / "a.mkv", numbered(24), pts=times).name, split)
    assert media.probe(made).fps == 24 and numbers(media.read_frames(made))[: len(wanted)] == wanted


def test_pictures_are_loaded_as_they_are_shown(tmp_path):
    """Turned, of an animation the first; what is transparent keeps its colour and is in the mask, as in ComfyUI."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(corners(1)[0]).save(tmp_path / "turned.png", exif=exif)
    drawn = [Image.fromarray(frame) for frame in numbered(3)]
    drawn[0].save(tmp_path / "moving.webp", save_all=True, append_images=drawn[1:], lossless=True)
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:24] = 51
    Image.fromarray(np.dstack([corners(1)[0], alpha])).save(tmp_path / "clear.png")
    load = LoadImage().load
    image, mask = load(str(tmp_path / "turned.png"))
    assert np.array_equal((image[0].numpy() * 255).round(), np.rot90(corners(1)[0], -1)) and not mask.any()
    assert numbers((load(str(tmp_path / "moving.webp"))[0].numpy() * 255).round()) == [0]
    image, mask = load(str(tmp_path / "clear.png"))
    assert np.array_equal((image[0].numpy() * 255).round(), corners(1)[0])
    np.testing.assert_allclose(mask[0].numpy(), 1 - alpha / 255, atol=1e-6)


def test_dates_in_a_prefix_are_filled_in(tmp_path, monkeypatch):
    """Their colon is none of the name."""
    monkeypatch.chdir(tmp_path)
    assert refusal("%date:yyyy-MM-dd%/clip") == ""
    assert "holds ':'" in refusal("ab:c")
