"""A clip that is encoded one chunk behind: what is finished when, whose errors are raised where."""

import threading
import time

import numpy as np
import pytest
from helios_video.helios_core.join import Behind, Clip, video


def frames(count=3, level=0):
    return np.full((count, 32, 32, 3), level, np.uint8)


def append(clip, blocks):
    return clip.append(blocks)


def test_chunks_are_those_of_appending_at_once(tmp_path):
    wanted = Clip.new(tmp_path / "at once")
    for i in range(3):
        wanted = wanted.append([frames(3, 40 * i), frames(2, 40 * i + 9)])
    with Behind(Clip.new(tmp_path / "behind")) as clips:
        for i in range(3):
            clips.append(iter([frames(3, 40 * i), frames(2, 40 * i + 9)]), append)
    assert clips.clip.num_frames == 15 and clips.clip.tail.frame.tobytes() == wanted.tail.frame.tobytes()
    for one, other in zip(clips.clip.segments, wanted.segments, strict=True):
        assert one.path.name == other.path.name and one.path.read_bytes() == other.path.read_bytes()


def test_the_caller_goes_on_while_a_chunk_is_encoded(tmp_path):
    """It counts as finished once its file is closed; no more than one is on its way; its frames are made here."""
    gate, here, made = threading.Event(), threading.get_ident(), []

    def slow(clip, blocks):
        kept = list(blocks)
        gate.wait(10)
        return clip.append(kept)

    def decoded():
        made.append(threading.get_ident())
        yield frames()

    with Behind(Clip.new(tmp_path)) as clips:
        clips.append(decoded(), slow)
        assert clips.clip.num_frames == 0 and made == [here]
        threading.Timer(0.2, gate.set).start()
        then = time.monotonic()
        clips.append(decoded(), append)
        assert time.monotonic() - then > 0.1 and clips.clip.num_frames == 3
    assert clips.clip.num_frames == 6 and made == [here] * 2


def test_frames_are_not_made_for_a_chunk_that_is_there_already(tmp_path):
    kept = Clip.new(tmp_path).append(frames())
    with Behind(Clip.new(tmp_path / "other")) as clips:
        clips.append((pytest.fail("decoded") for _ in range(1)), lambda clip, blocks: kept)
        assert clips.finish() is kept


def full(*args):
    raise OSError(28, "No space left on device")


def test_an_error_is_raised_by_the_next_chunk_or_at_the_end(tmp_path):
    for more in (True, False):
        with pytest.raises(OSError, match="No space left"), Behind(Clip.new(tmp_path)) as clips:
            clips.append([frames()], full)
            if more:
                clips.append([frames()], append)
                pytest.fail("it was raised too late")
        assert clips.clip.num_frames == 0


def test_an_error_in_the_middle_of_a_chunk_ends_its_decoding(tmp_path, monkeypatch):
    real, made = video.VideoWriter.write, []
    monkeypatch.setattr(video.VideoWriter, "write", lambda self, block: (real(self, block), full()))

    def decoded():
        for i in range(1000):
            made.append(i)
            time.sleep(0.005)
            yield frames()

    with pytest.raises(OSError, match="No space left"), Behind(Clip.new(tmp_path)) as clips:
        clips.append(decoded(), append)
    assert len(made) < 1000 and clips.clip.num_frames == 0


def test_a_stop_while_frames_are_made_leaves_the_chunk_unfinished_and_keeps_those_before(tmp_path):
    def stopped():
        yield frames()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Behind(Clip.new(tmp_path)) as clips:
        clips.append([frames()], append)
        clips.append(stopped(), append)
    assert clips.clip.num_frames == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk_0000.mp4", "chunk_0001.part.mp4"]


def test_a_stop_between_chunks_finishes_the_one_on_its_way(tmp_path):
    def slow(clip, blocks):
        kept = list(blocks)
        time.sleep(0.2)
        return clip.append(kept)

    with pytest.raises(KeyboardInterrupt), Behind(Clip.new(tmp_path)) as clips:
        clips.append([frames()], slow)
        raise KeyboardInterrupt
    assert clips.clip.num_frames == 3 and clips.clip.segments[0].path.is_file()


def test_the_first_error_is_the_one_to_report(tmp_path):
    with pytest.raises(ValueError, match="sampling"), Behind(Clip.new(tmp_path)) as clips:
        clips.append([frames()], full)
        raise ValueError("sampling")
