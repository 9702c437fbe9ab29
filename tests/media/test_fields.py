"""Interlaced clips are made whole; others stay as they are, bit for bit."""

import av
import numpy as np
import pytest
from helios_video.helios_core import media

HOW = {"mpeg2video": {"flags": "+ildct+ilme"}, "libx264": {"x264-params": "interlaced=1:tff=1"}}


def woven(path, codec: str, count: int = 12) -> np.ndarray:
    """A bar that moves from field to field; the frames [n h w 3] as they were drawn for the first field of each."""
    fields = np.full((2 * count, 96, 128, 3), 60, np.uint8)
    for i, field in enumerate(fields):
        field[30:60, 4 * i : 4 * i + 24] = 220
    frames = fields[::2].copy()
    frames[:, 1::2] = fields[1::2, 1::2]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=HOW[codec])
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")))
        file.mux(stream.encode(None))
    return fields[::2]


@pytest.mark.parametrize("codec", HOW)
def test_combs_are_gone_and_no_frame_is_lost(tmp_path, codec):
    drawn = woven(tmp_path / "a.mkv", codec)
    shown = media.read_frames(tmp_path / "a.mkv")
    assert shown.shape == drawn.shape
    combs = np.abs(shown[2:-2, 34:56].astype(int) - shown[2:-2, 33:55]).mean()  # between neighbouring rows of the bar
    assert combs < 2 and np.abs(shown[2:-2].astype(int) - drawn[2:-2]).mean() < 5
    assert media.probe(tmp_path / "a.mkv").frames == 12 and np.array_equal(
        media.read_picture(tmp_path / "a.mkv"), shown[0]
    )


def test_without_the_filter_frames_come_as_they_are(tmp_path, monkeypatch):
    woven(tmp_path / "a.mkv", "mpeg2video")
    monkeypatch.setattr(media.fields, "FILTER", "none such")
    shown = media.read_frames(tmp_path / "a.mkv")
    assert len(shown) == 12 and np.abs(shown[3, 34:56].astype(int) - shown[3, 33:55]).mean() > 5
