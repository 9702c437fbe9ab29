"""What a folder of clips with captions may hold, and what is said of what it may not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.training.captioned import bucket, check_files, find_captioned
from PIL import Image


def picture(path, caption=None):
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def clip(path, frames, caption="a clip"):
    video.write_video(path, np.zeros((frames, 16, 16, 3), np.uint8))
    path.with_suffix(".txt").write_text(caption)
    return path


def test_text_files_beside_pictures_are_captions(tmp_path):
    (tmp_path / "more").mkdir()
    picture(tmp_path / "b.png", "  a dog \n")
    picture(tmp_path / "more" / "a.png", "a cat")
    assert [(f.path.name, f.captions) for f in find_captioned(tmp_path)] == [
        ("b.png", ("a dog",)),
        ("a.png", ("a cat",)),
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_may_say_a_thing_in_several_ways(tmp_path, ending):
    picture(tmp_path / "a.png")
    rows = [("a.png", "a dog, running"), ("a.png", "it runs")]
    if ending == "csv":
        text = "file,caption\n" + "".join(f'{name},"{said}"\n' for name, said in rows)
    else:
        text = "\n".join(json.dumps({"file": name, "caption": said}) for name, said in rows)
    (tmp_path / f"captions.{ending}").write_text(text)
    (found,) = find_captioned(tmp_path)
    assert found.captions == ("a dog, running", "it runs")


@pytest.mark.parametrize(
    "text, said",
    [
        ("file,text\na.png,x\n", "wanted the columns file and caption, got file, text"),
        ("file,caption,fps\na.png,x,24\n", "unknown: fps"),
        ("file,caption\nb.png,x\n", "row 2: no file"),
        ("file,caption\na.png,\n", "has no caption"),
        ("file,caption\n", "holds no rows"),
        ("file,caption\na.png,x,more\n", "unknown: .more."),
    ],
)
def test_what_a_table_may_not_hold_is_named(tmp_path, text, said):
    picture(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        find_captioned(tmp_path)


def test_two_tables_are_one_too_many(tmp_path):
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="a.csv, b.jsonl"):
        find_captioned(tmp_path)


def test_a_line_of_json_that_is_none_is_shown(tmp_path):
    (tmp_path / "a.jsonl").write_text("{file: a}")
    with pytest.raises(ValueError, match="row 1: no JSON"):
        find_captioned(tmp_path)


def test_an_empty_folder_and_missing_captions_are_errors(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        find_captioned(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no clips or pictures"):
        find_captioned(tmp_path)
    picture(tmp_path / "a.png", "said")
    for i in range(7):
        picture(tmp_path / f"b{i}.png", None if i else "  ")
    with pytest.raises(ValueError, match="7 of 8 files have no caption: b0.png, .* and 2 more"):
        find_captioned(tmp_path)


def test_short_clips_are_errors_and_broken_ones_are_passed_over(tmp_path, capsys):
    clip(tmp_path / "long.mp4", 33)
    picture(tmp_path / "still.png", "a still")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "broken.txt").write_text("broken")
    found = check_files(find_captioned(tmp_path), 33)
    assert [(one.file.path.name, one.frames) for one in found] == [("long.mp4", 33), ("still.png", 1)]
    assert "broken.mp4" in capsys.readouterr().err
    clip(tmp_path / "short.mp4", 32)
    with pytest.raises(ValueError, match=r"1 clips have fewer than the 33 frames of a chunk: short.mp4 \(32\)"):
        check_files(find_captioned(tmp_path), 33)


def test_a_folder_of_broken_files_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="none of the 1 files can be read"):
        check_files(find_captioned(tmp_path), 33)


@pytest.mark.parametrize(
    "size, wanted",
    [((640, 384), (640, 384)), ((1920, 1080), (640, 384)), ((1080, 1920), (320, 704)), ((500, 500), (448, 512))],
)
def test_buckets_keep_the_shape_within_the_budget(size, wanted):
    found = bucket(*size, 64, 640 * 384)
    assert found[0] % 64 == found[1] % 64 == 0 and found[0] * found[1] <= 640 * 384
    assert abs(np.log(found[0] / found[1] * size[1] / size[0])) < 0.2, (found, wanted)


def test_no_bucket_is_an_error():
    with pytest.raises(ValueError, match="the smallest size of this model is 64x64"):
        bucket(10, 10, 64, 1000)
