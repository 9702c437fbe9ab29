"""Colours: every matrix and range within a rounding, many reads and writes, HDR for a screen without it."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.media import colour, hdr
from support.clips import planes, smooth, write


def shown(frame, transfer=1, primaries=1):
    """uint8 [h w 3] of one decoded frame."""
    context = SimpleNamespace(color_trc=transfer, color_primaries=primaries)
    return colour.Shown(SimpleNamespace(sample_aspect_ratio=None, codec_context=context), "a.mp4")(frame)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("depth", ["", "10le"])
def test_colours_are_read_within_a_rounding(matrix, full, depth):
    """The standard's own numbers, without chroma that is shared between pixels."""
    pixels = smooth()
    found = shown(planes(pixels / 255, f"yuv444p{depth}", matrix, full)).astype(int) - pixels
    bias = 0.3 if full and depth else 0.1  # swscale takes white for 1020 of 1023
    assert np.abs(found).max() <= (1 if depth else 2) and abs(found.mean()) < bias


@pytest.mark.parametrize("depth", ["", "10le"])
def test_shared_chroma_is_read_without_a_bias(depth):
    """By itself swscale darkens every read by 1 of 255, of 10 bits by 2."""
    pixels = smooth()
    whole = planes(pixels / 255, f"yuv444p{depth}", 1, False)
    same = "in_color_matrix=bt709:out_color_matrix=bt709:in_range=limited:out_range=limited"
    halved = colour._Graph(96, 64, f"yuv444p{depth}", same, f"yuv420p{depth}")(whole)
    halved.colorspace, halved.color_range = 1, 1
    found = shown(halved).astype(int) - pixels
    assert abs(found.mean()) < 0.1 and np.abs(found).mean() < 0.6 and np.abs(found).max() <= 4


def test_eight_reads_and_writes_lose_nothing_in_the_mean(tmp_path):
    """They lost 9 of 255."""
    first = frames = np.stack([smooth(seed=i) for i in range(3)])
    for i in range(8):
        with video.VideoWriter(tmp_path / f"{i}.mp4", 96, 64, crf=4) as writer:
            writer.write(frames)
        frames = video.read_frames(tmp_path / f"{i}.mp4")
    found = frames.astype(int) - first
    assert abs(found.mean()) < 0.2 and np.abs(found).mean() < 1.5


@pytest.mark.parametrize("name", ["gray", "rgb24", "bgr24", "gbrp", "yuvj444p"])
def test_formats_without_a_range_are_whole(name):
    ramp = np.arange(0, 256, 4, dtype=np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    frame = av.VideoFrame.from_ndarray(ramp, format="rgb24")
    graph = colour._Graph(64, 16, "rgb24", "in_range=full:out_range=full", name)
    assert np.abs(shown(graph(frame)).astype(int) - ramp).max() <= 2


def test_unknown_colours_are_refused():
    frame = planes(smooth() / 255, "yuv444p", 1, False)
    frame.colorspace = 8  # YCgCo
    with pytest.raises(ValueError, match="a.mp4: its colours are stored in a way"):
        shown(frame)


def test_linear_light_is_refused():
    with pytest.raises(ValueError, match="a.mp4: holds linear light"):
        shown(planes(smooth() / 255, "yuv444p", 1, False), transfer=colour.LINEAR)


def pq(nits):
    """ST 2084, from light to its signal."""
    power = (np.asarray(nits, float) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light):
    """BT.2100, from a scene's light, 0 to 1, to its signal."""
    light = np.asarray(light, float)
    high = 0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 0.1)) + 0.55991073
    return np.where(light <= 1 / 12, np.sqrt(3 * light), high)


def grey(signal):
    """A 10-bit BT.2020 frame with columns of that signal."""
    return planes(np.repeat(np.asarray(signal)[None, :, None], 16, 0).repeat(3, 2), "yuv444p10le", 9, False)


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_hdr_is_rolled_off(transfer):
    """Black stays black, greys stay grey and in order, reference white is light, and beyond it there is more."""
    nits = np.array([0, 5, 20, 50, 100, 203, 400, 700, 1000.0])
    signal = pq(nits) if transfer == hdr.PQ else hlg((nits / 1000) ** (1 / 1.2))
    found = shown(grey(signal), transfer, hdr.BT2020)[8].astype(int)
    assert np.abs(found - found[:, :1]).max() <= 2
    levels = found[:, 0]
    assert (np.diff(levels) > 2).all() and levels[0] <= 1 and levels[-1] == 255
    assert 220 <= levels[5] <= 235
    below = nits / 203 < 0.5  # shown with the light that they have
    np.testing.assert_allclose(levels[below], 255 * (nits[below] / 203) ** (1 / 2.4), atol=2)


def test_wide_colours_become_the_screens():
    """BT.709's red, said in BT.2020, is that red again; without HDR nothing else changes."""
    red = (np.array([[0.6274, 0.0691, 0.0164]]) ** (1 / 2.4)).reshape(1, 1, 3).repeat(16, 0).repeat(16, 1)
    found = shown(planes(red, "yuv444p10le", 9, False), 14, hdr.BT2020)[8, 8].astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 6
    levels = np.linspace(0.05, 0.95, 8)
    np.testing.assert_allclose(shown(grey(levels), 14, hdr.BT2020)[8, :, 1], 255 * levels, atol=1)


def test_hdr_clips_are_recognised(tmp_path):
    """By the file's tags, from end to end."""
    deep = np.full((3, 32, 32, 3), round(65535 * float(pq(203))), np.uint16)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}
    path = write(tmp_path / "a.mp4", deep, pixel_format="yuv420p10le", **tags)
    assert 220 <= video.read_frames(path).mean() <= 235
