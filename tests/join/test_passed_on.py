"""A clip handed on: what a player shows and plays stays the same, and nothing is encoded that need not be."""

from dataclasses import replace

import av
import numpy as np
import pytest
from helios_video.helios_core import media
from helios_video.helios_core.join import pass_on, video
from PIL import Image
from support.clips import TURNS, add, corners, numbered, tone, turn, uneven, write


def times(path):
    """When each frame is shown, in seconds from the first."""
    with av.open(str(path)) as file:
        found = [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]
    return [t - found[0] for t in found]


def same(path, out):
    """Frame by frame, at the same times."""
    before, after = media.read_frames(path), media.read_frames(out)  # a muxer guesses how long the last frame stays
    assert len(before) <= len(after) <= len(before) + 2 and np.array_equal(before, after[: len(before)])
    np.testing.assert_allclose(times(path), times(out), atol=1e-3)


@pytest.mark.parametrize("matrix", list(TURNS))
def test_turned_clips_stay_turned(tmp_path, matrix):
    path = turn(write(tmp_path / "a.mp4", corners()), matrix)
    pass_on(path, tmp_path / "b.mp4", metadata={"prompt": {"1": 2}})
    same(path, tmp_path / "b.mp4")
    assert media.read_metadata(tmp_path / "b.mp4")["prompt"] == {"1": 2}
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.mp4", "b.mp4"]


def test_time_stamps_and_tags_and_pixels_stay(tmp_path):
    tags = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 2}
    path = write(tmp_path / "a.mkv", numbered(24), pts=uneven()[0], sample_aspect_ratio=2, **tags)
    pass_on(path, tmp_path / "b.mp4")
    same(path, tmp_path / "b.mp4")
    before, after = (media.probe(p) for p in (path, tmp_path / "b.mp4"))
    assert replace(before, frames=after.frames) == after and after.color_range == 2 and after.width == 192


def test_sound_goes_along(tmp_path):
    """Copied, as the frames are; of a file that an mp4 cannot hold both are encoded anew."""
    told = {"title": "bars", "workflow": {"nodes": []}}
    video.write_video(tmp_path / "a.mp4", numbered(24), sound=media.Sound(tone(1, start=0.5), 44100), metadata=told)
    with av.open(str(tmp_path / "b.avi"), "w") as file:
        stream = file.add_stream("huffyuv", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 32, "yuv422p"
        fill = media.write_sound(file, media.Sound(tone(1, start=0.5), 44100))
        for i, pixels in enumerate(numbered(24)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv422p")
            frame.pts = i
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        fill()
    for name in ("a.mp4", "b.avi"):
        pass_on(tmp_path / name, tmp_path / "out.mp4")
        before, after = (media.read_sound(tmp_path / n)[0] for n in (name, "out.mp4"))
        said = media.read_metadata(tmp_path / "out.mp4")
        assert "workflow" not in said and said.get("title") == {"a.mp4": "bars"}.get(name)
        assert media.probe(tmp_path / "out.mp4").frames == 24 and before.rate == after.rate
        assert np.abs(before.samples[:, :40000] - after.samples[:, :40000]).max() < 0.1


def test_only_what_is_shown_is_passed_on(tmp_path):
    """The stream marked as default, without what else is in the file."""
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        fills = [add(file, part) for part in (corners(4), numbered(9))]
        first, second = file.streams.video
        first.disposition, second.disposition = 0, 1  # AV_DISPOSITION_DEFAULT
        for fill in fills:
            fill()
    pass_on(tmp_path / "a.mkv", tmp_path / "b.mp4")
    same(tmp_path / "b.mp4", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert len(file.streams) == 1 and media.probe(tmp_path / "b.mp4").frames == 9


def test_animations_and_bare_streams_become_videos(tmp_path):
    drawn = [Image.fromarray(frame) for frame in numbered(6)]
    drawn[0].save(tmp_path / "a.gif", save_all=True, append_images=drawn[1:], duration=40)
    write(tmp_path / "a.h264", numbered(6))
    for name in ("a.gif", "a.h264"):
        pass_on(tmp_path / name, tmp_path / "b.mp4")
        assert media.probe(tmp_path / "b.mp4").frames == 6
        assert np.abs(media.read_frames(tmp_path / "b.mp4").astype(int) - numbered(6)).mean() < 4


def test_what_cannot_be_read_leaves_nothing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 9)
    with pytest.raises(ValueError, match="a.mp4 is not a video"):
        pass_on(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
