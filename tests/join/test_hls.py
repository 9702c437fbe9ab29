"""A growing clip as a player takes it: every frame, with times that go on, from playlists of one head and its parts."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from helios_video.helios_core.join import Clip, hls, video
from support.clips import numbered

RATES = (24, Fraction(24000, 1001), 7, 1000)


def grown(folder, fps=24, counts=(33, 5, 33)):
    clip = Clip.new(folder / "run", fps)
    for count in counts:
        clip = clip.append(numbered(count))
    return clip


def played(clip, folder, ended=True):
    """(frames, their times in seconds) as FFmpeg's HLS reader, which VLC and OBS share, gives them."""
    folder.mkdir()
    (folder / hls.HEAD).write_bytes(hls.head(clip))
    (folder / hls.LIST).write_text(hls.playlist(clip, ended))
    for i in range(len(clip.segments)):
        (folder / f"{i}{hls.SUFFIX}").write_bytes(hls.part(clip, i))
    return decoded(folder / hls.LIST)


def decoded(path):
    """(frames as they are encoded, their times) of a file or a playlist."""
    options = {"allowed_extensions": "ALL"} if path.suffix == ".m3u8" else {}
    with av.open(str(path), options=options) as file:
        found = [(frame.to_ndarray(), float(frame.pts * frame.time_base)) for frame in file.decode(video=0)]
    return np.stack([frame for frame, _ in found]), [time for _, time in found]


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_a_playlist_gives_every_frame_at_its_time(fps, tmp_path):
    clip = grown(tmp_path, fps)
    frames, times = played(clip, tmp_path / "served")
    assert np.array_equal(frames, np.concatenate([decoded(s.path)[0] for s in clip.segments]))
    assert np.allclose(np.diff(times), float(1 / clip.fps), atol=2e-5)  # HLS readers count in 1/90000 seconds


def test_what_media_source_is_given_is_one_stream(tmp_path):
    clip = grown(tmp_path)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(hls.head(clip) + b"".join(hls.part(clip, i) for i in range(3)))
    assert len(video.read_frames(whole)) == 71 and hls.codec(hls.head(clip)).startswith("avc1.")
    with av.open(str(whole)) as file:
        assert [p.pts * p.time_base * 24 for p in file.demux(video=0) if p.size] == list(range(71))


def test_the_playlist_says_whether_more_will_come(tmp_path):
    clip = grown(tmp_path, counts=(33,))
    assert "EVENT" in hls.playlist(clip, False) and "ENDLIST" not in hls.playlist(clip, False)
    assert hls.playlist(clip, True).endswith("#EXTINF:1.375000,\n0.m4s\n#EXT-X-ENDLIST\n")
    longer = clip.append(numbered(33))
    assert hls.playlist(longer, False).startswith(hls.playlist(clip, False)), "lines are only added"


def test_what_is_not_there_or_broken_is_refused(tmp_path):
    clip = grown(tmp_path, counts=(33,))
    with pytest.raises(ValueError, match="no chunk yet"):
        hls.head(Clip.new(tmp_path / "empty"))
    for index in (-1, 1):
        with pytest.raises(ValueError, match="the video has 1"):
            hls.part(clip, index)
    path = clip.segments[0].path
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="does not fit"):
        hls.part(clip, 0)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no MP4"):
        hls.part(clip, 0)
    with pytest.raises(ValueError, match=r"no H\.264"):
        hls.codec(b"")
