"""Clips of cameras and other programs, as a player shows them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helios_video.helios_core import media
from PIL import Image
from support.clips import TURNS, add, corners, numbered, numbers, smooth, turn, uneven, write

DEFAULT, ATTACHED = 0x1, 0x400  # AV_DISPOSITION_DEFAULT, _ATTACHED_PIC


def alike(a, b):
    """Apart from what 4:2:0 blurs at edges."""
    return a.shape == b.shape and np.quantile(np.abs(a.astype(int) - b), 0.75) <= 2


@pytest.mark.parametrize("matrix", list(TURNS))
def test_frames_are_turned_as_the_display_matrix_says(tmp_path, matrix):
    path = turn(write(tmp_path / "a.mp4", corners()), matrix)
    shown = np.stack([TURNS[matrix](frame) for frame in corners()])
    frames, info = media.read_frames(path), media.probe(path)
    assert alike(frames, shown) and (info.height, info.width) == shown.shape[1:3] and info.frames == 5
    assert alike(media.read_picture(path), shown[0])


def test_an_angle_that_is_no_quarter_turn_is_refused(tmp_path):
    path = write(tmp_path / "a.mp4", corners())
    with pytest.raises(ValueError, match="a.mp4 is turned by an angle"):
        media.read_frames(turn(path, (0.8, 0.6, -0.6, 0.8)))


@pytest.mark.parametrize(
    ("ratio", "size"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(16, 15), (68, 48))]
)
def test_pixels_become_square(tmp_path, ratio, size):
    path = write(tmp_path / "a.mp4", corners(), sample_aspect_ratio=ratio)
    info, frames = media.probe(path), media.read_frames(path)
    assert (info.width, info.height) == size == frames.shape[2:0:-1]
    wanted = np.asarray(Image.fromarray(corners()[0]).resize(size, Image.Resampling.BICUBIC))
    assert alike(frames[0], wanted)


def test_absurd_pixels_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4", corners(), sample_aspect_ratio=Fraction(20))
    with pytest.raises(ValueError, match="a.mp4: its pixels are said to be 20 times"):
        media.read_frames(path)


@pytest.mark.parametrize("marked", [0, 1])
def test_the_stream_marked_as_default_is_shown(tmp_path, marked):
    """The first one may be another language, an angle, or a cover."""
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        fills = [add(file, part) for part in (corners(4), numbered(9))]
        for i, stream in enumerate(file.streams.video):
            stream.disposition = DEFAULT if i == marked else 0
        for fill in fills:
            fill()
    assert media.probe(tmp_path / "a.mkv").frames == (4, 9)[marked]
    assert len(media.read_frames(tmp_path / "a.mkv")) == (4, 9)[marked]


@pytest.mark.parametrize("alone", [False, True])
def test_a_cover_picture_is_no_video(tmp_path, alone):
    """Covers come first, or are all that a file of sound has to show."""
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        cover = file.add_stream("mjpeg", rate=1, options={"strict": "-1"})
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = ATTACHED
        fill = None if alone else add(file, numbered(7))
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
        file.mux(cover.encode(frame))
        file.mux(cover.encode())
        if fill:
            fill()
    if alone:
        with pytest.raises(ValueError, match="only a cover picture"):
            media.read_frames(tmp_path / "a.mp4")
    else:
        assert numbers(media.read_frames(tmp_path / "a.mp4")) == list(range(7))


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path):
    """As cameras that record before the button is pressed: packets with times below zero are hidden."""
    whole = write(tmp_path / "whole.mp4", numbered(40), options={"bf": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = source.streams.video[0]
        target = file.add_stream_from_template(stream, opaque=True)
        for packet in source.demux(stream):
            if packet.size:
                step = packet.duration
                packet.pts, packet.dts, packet.stream = packet.pts - 12 * step, packet.dts - 12 * step, target
                file.mux(packet)
    frames = media.read_frames(tmp_path / "a.mp4")
    assert media.probe(tmp_path / "a.mp4").frames == len(frames) == 28
    assert numbers(frames) == list(range(12, 40))


def test_a_variable_rate_becomes_a_constant_one(tmp_path):
    """Every frame stays as long as its time stamps say: 24 a second, and every fourth one three times as long."""
    times, wanted = uneven()
    path = write(tmp_path / "a.mkv", numbered(24), pts=times)
    frames, info = media.read_frames(path), media.probe(path)
    assert info.fps == 24 and numbers(frames) == wanted and info.frames == len(frames)
    ends = media.read_ends(path, 5)
    assert numbers(ends) == [0, *wanted[-5:]]


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), Fraction(60000, 1001)])
def test_rounded_time_stamps_are_a_constant_rate(tmp_path, fps):
    """Matroska counts milliseconds, and a recording may lack a frame."""
    times = [round(1000 * i / fps) for i in range(60)]
    path = write(tmp_path / "a.mkv", numbered(60), fps=fps, pts=times)
    assert media.probe(path).fps == fps and numbers(media.read_frames(path)) == list(range(60))
    path = write(tmp_path / "b.mkv", numbered(59), fps=fps, pts=[*times[:40], *times[41:]])
    assert media.probe(path).fps == fps and numbers(media.read_frames(path)) == list(range(59))


def test_times_that_are_far_apart_are_refused(tmp_path):
    path = write(tmp_path / "a.mkv", numbered(12), pts=[*range(0, 440, 40), 9_000_000])
    with pytest.raises(ValueError, match="a.mkv: its frames are too far apart, 12 in 9000 seconds"):
        media.read_frames(path)


def test_a_change_of_size_keeps_the_first_size(tmp_path):
    parts = [
        write(tmp_path / f"{i}.h264", corners(3, *size)).read_bytes() for i, size in enumerate(((64, 48), (96, 72)))
    ]
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    frames = media.read_frames(tmp_path / "a.h264")
    assert frames.shape == (6, 48, 64, 3) and alike(frames, corners(6))


def test_animated_pictures_are_clips(tmp_path):
    """GIF, WebP and PNG; each picture as long as it says."""
    drawn = [Image.fromarray(frame) for frame in numbered(6)]
    for name in ("a.gif", "a.webp", "a.png"):
        more = {"lossless": True} if name == "a.webp" else {}
        drawn[0].save(
            tmp_path / name, save_all=True, append_images=drawn[1:], duration=[40, 40, 40, 40, 120, 40], **more
        )
        assert numbers(media.read_frames(tmp_path / name)) == [0, 1, 2, 3, 4, 4, 4, 5], name
        assert media.probe(tmp_path / name).fps == 25 and media.probe(tmp_path / name).frames == 8
        assert numbers([media.read_picture(tmp_path / name)]) == [0]


def test_what_is_transparent_is_shown_over_black(tmp_path):
    rgba = np.dstack([corners(1)[0], np.full((48, 64), 255, np.uint8)])
    rgba[:24, :, 3], rgba[24:, :32, 3] = 0, 128
    with av.open(str(tmp_path / "a.mov"), "w") as file:
        stream = file.add_stream("qtrle", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        for _ in range(2):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="argb")))
        file.mux(stream.encode())
    Image.fromarray(rgba).save(tmp_path / "a.png")
    wanted = np.rint(rgba[..., :3].astype(float) * rgba[..., 3:] / 255)
    for shown in (media.read_frames(tmp_path / "a.mov")[0], media.read_picture(tmp_path / "a.png")):
        assert np.abs(shown - wanted).max() <= 1


def test_damage_is_told_with_the_file_and_the_place(tmp_path):
    path = write(tmp_path / "a.mp4", np.stack([smooth(seed=i) for i in range(30)]), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    for part in (slice(0, 40), slice(0, len(data) // 2)):
        (tmp_path / "cut.mp4").write_bytes(data[part])
        with pytest.raises(ValueError, match="cut.mp4 "):
            media.read_frames(tmp_path / "cut.mp4")
    at = data.index(b"mdat") + len(data) // 3
    data[at : at + 4000] = b"\xff" * 4000
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(ValueError, match=r"bad.mp4 is damaged after frame \d+"):
        media.read_frames(tmp_path / "bad.mp4")


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "concat:a.mp4"])
def test_a_colon_is_no_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4", corners())
    (tmp_path / "a.mp4").rename(name)
    assert len(media.read_frames(name)) == 5
    with pytest.raises(ValueError, match="no file at concat:none.mp4"):
        media.read_frames("concat:none.mp4")


def test_a_list_of_files_is_no_video(tmp_path):
    """It would open what it names."""
    write(tmp_path / "a.mp4", corners())
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name in ("list.m3u8", "list.mp4"):
        with pytest.raises(ValueError, match=name):
            media.read_frames(tmp_path / name)
