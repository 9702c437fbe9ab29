"""Sound beside the frames."""

import av
import numpy as np
import pytest
from helios_video.helios_core import media
from helios_video.helios_core.join import video
from support.clips import add, numbered, tone, write


def loud(samples, rate, at, long=0.05):
    """How loud it is from there on."""
    return float(np.abs(samples[0, round(at * rate) : round((at + long) * rate)]).max())


@pytest.mark.parametrize(("rate", "layout"), [(44100, 2), (48000, 1), (22050, 6), (192000, 2), (16000, 3)])
def test_sound_comes_back(tmp_path, rate, layout):
    """Of any rate and channels; more than two that are no 5.1 are mixed."""
    samples = np.resize(tone(1, rate, start=0.5), (layout, rate))
    video.write_video(tmp_path / "a.mp4", numbered(24), sound=media.Sound(samples, rate))
    found, why = media.read_sound(tmp_path / "a.mp4")
    assert why == "" and found.rate == (48000 if rate == 192000 else rate)
    assert len(found.samples) == {3: 1}.get(layout, layout) and abs(found.samples.shape[1] / found.rate - 1) < 0.1
    assert loud(found.samples, found.rate, 0.1) < 0.05 < 0.2 < loud(found.samples, found.rate, 0.7)
    assert video.probe(tmp_path / "a.mp4").frames == 24


def test_sound_begins_with_the_first_frame(tmp_path):
    """The sound of this file begins half a second before its frames."""
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        fill = add(file, numbered(24), pts=[500 + round(i * 1000 / 24) for i in range(24)])
        write_tone = media.write_sound(file, media.Sound(tone(1.5, start=0.5), 44100))
        fill()
        write_tone()
    found, _ = media.read_sound(tmp_path / "a.mkv")
    assert loud(found.samples, found.rate, 0.05) > 0.3 and found.samples.shape[1] / found.rate < 1.1


def test_a_clip_without_sound_has_none(tmp_path):
    assert media.read_sound(write(tmp_path / "a.mp4", numbered(3))) == (None, "")


def test_broken_sound_is_told(tmp_path):
    video.write_video(tmp_path / "a.mp4", numbered(24), sound=media.Sound(tone(1), 44100))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as file:
        targets = [file.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for packet in source.demux():
            if packet.size and packet.stream.type == "audio":
                broken = av.Packet(b"\x55" * packet.size)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                broken.stream = targets[1]
                file.mux(broken)
            elif packet.size:
                packet.stream = targets[0]
                file.mux(packet)
    found, why = media.read_sound(tmp_path / "b.mp4")
    assert found is None and "b.mp4: its sound cannot be decoded" in why
    assert len(media.read_frames(tmp_path / "b.mp4")) == 24


def test_sound_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sound must be finite floats"):
        video.write_video(tmp_path / "a.mp4", numbered(2), sound=media.Sound(np.full((2, 9), np.nan), 44100))
    assert list(tmp_path.iterdir()) == []
