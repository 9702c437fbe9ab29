"""Clips on disk: joining copies packets (M16), handles are immutable, and a killed run leaves what it finished."""

import dataclasses
import signal
import subprocess
import sys
import tracemalloc

import av
import numpy as np
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.join.clip import Clip, join


def frames(count=33, seed=0, size=(64, 96)):
    """A random pattern in 8x8 patches that moves one pixel per frame: uint8 [f, h, w, 3]."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(picture, i, 1) for i in range(count)]).astype(np.uint8)


def packets(path):
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(video=0) if packet.size]


@pytest.fixture
def clip(tmp_path):
    made = Clip.new(tmp_path / "run")
    for i, count in enumerate((33, 33, 5, 1)):
        made = made.append(frames(count, seed=i))
    return made


def test_m16_join_is_the_segments_packet_for_packet(clip, tmp_path):
    out = join(clip, tmp_path / "out.mp4")
    assert packets(out) == [p for s in clip.segments for p in packets(s.path)]
    decoded = np.concatenate([video.read_frames(s.path) for s in clip.segments])
    assert np.array_equal(video.read_frames(out), decoded)
    assert video.probe(out).frames == clip.num_frames == 72


def test_join_has_one_continuous_clock(clip, tmp_path):
    with av.open(str(join(clip, tmp_path / "out.mp4"))) as file:
        stream = file.streams.video[0]
        times = [(p.pts, p.dts, p.duration) for p in file.demux(stream) if p.size]
        tick = times[1][0]
        assert times == [(i * tick, i * tick, tick) for i in range(72)]
        assert tick * stream.time_base == 1 / stream.average_rate
        assert file.duration == 3_000_000  # microseconds
    assert video.probe(tmp_path / "out.mp4").colorspace == 1


def test_every_segment_starts_with_a_keyframe_and_plays_alone(clip):
    for segment in clip.segments:
        with av.open(str(segment.path)) as file:
            assert next(file.demux(video=0)).is_keyframe
        assert len(video.read_frames(segment.path)) == segment.frames


@pytest.mark.parametrize("num_frames", [1, 33, 40, 71, 72])
def test_trim_copies_packets(clip, tmp_path, num_frames):
    out = join(clip, tmp_path / "out.mp4", num_frames=num_frames)
    whole = [p for s in clip.segments for p in packets(s.path)]
    assert packets(out) == whole[:num_frames]
    assert len(video.read_frames(out)) == num_frames


def test_metadata_of_a_joined_clip(clip, tmp_path):
    join(clip, tmp_path / "out.mp4", {"prompt": {"3": {"class_type": "T5Encode"}}})
    assert video.read_metadata(tmp_path / "out.mp4")["prompt"]["3"]["class_type"] == "T5Encode"


def test_frames_are_decoded_one_at_a_time(clip):
    lazy = clip.frames()
    assert next(lazy).shape == (64, 96, 3)
    assert sum(1 for _ in lazy) == 71


def test_blocks_make_the_same_segment_as_one_array(tmp_path):
    whole = Clip.new(tmp_path / "a").append(frames(33))
    blocks = Clip.new(tmp_path / "b").append(frames(33)[i : i + 4] for i in range(0, 33, 4))
    assert packets(whole.segments[0].path) == packets(blocks.segments[0].path)


def test_clips_are_immutable_and_share_their_past(tmp_path):
    start = Clip.new(tmp_path).append(frames(5))
    one, two = start.append(frames(5, seed=1)), start.append(frames(5, seed=2))
    assert len(start.segments) == 1 and one.segments[0] == two.segments[0]
    assert one.segments[1].path != two.segments[1].path
    assert packets(one.segments[1].path) != packets(two.segments[1].path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        start.size = (2, 2)


def test_bad_chunks(tmp_path):
    clip = Clip.new(tmp_path).append(frames(2))
    for bad, says in (
        (frames(2, size=(64, 64)), r"\(96, 64\).*\(64, 64\)"),
        (frames(2).astype(np.float32), "uint8"),
        (iter(()), "at least one block"),
    ):
        with pytest.raises(ValueError, match=says):
            clip.append(bad)
    assert [p.name for p in tmp_path.iterdir()] == ["chunk_0000.mp4"]


def test_bad_joins(clip, tmp_path):
    with pytest.raises(ValueError, match="num_frames must be 0 .all. to 72.*got 73"):
        join(clip, tmp_path / "out.mp4", num_frames=73)
    with pytest.raises(ValueError, match="nothing to join"):
        join(Clip.new(tmp_path), tmp_path / "out.mp4")
    clip.segments[1].path.unlink()
    with pytest.raises(ValueError, match="no longer holds.*chunk_0001"):
        join(clip, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*.mp4"))


def test_foreign_segments_do_not_join(clip, tmp_path):
    other = Clip.new(tmp_path / "other").append(frames(3, size=(64, 64)))
    mixed = dataclasses.replace(clip, segments=clip.segments + other.segments)
    with pytest.raises(ValueError, match="cannot join .*differs from the first"):
        join(mixed, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*.mp4"))


def test_an_interrupted_chunk_keeps_its_frames(tmp_path):
    def stopped():
        yield frames(9)
        raise KeyboardInterrupt

    clip = Clip.new(tmp_path).append(frames(5))
    with pytest.raises(KeyboardInterrupt):
        clip.append(stopped())
    assert len(video.read_frames(tmp_path / "chunk_0001.part.mp4")) == 9
    assert clip.append(frames(5)).segments[1].path.name == "chunk_0001_1.mp4"


WRITER = """
import sys, time, numpy as np
from helios_video.helios_core.join import Clip
def block(i):
    return np.random.default_rng(i).integers(0, 256, (12, 64, 96, 3), dtype=np.uint8)
def slowly():
    for i in range(1000):
        yield block(i)
        print(i, flush=True)
        time.sleep(2 if i == 5 else 0.01)
clip = Clip.new(sys.argv[1])
clip = clip.append(block(0)).append(block(1))
clip.append(slowly())
"""


def test_a_killed_writer_leaves_playable_segments(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 5:
            process.kill()  # mid-segment: no end of file is written
            break
    process.wait()
    assert process.returncode in (-getattr(signal, "SIGKILL", 9), 1)
    assert [len(video.read_frames(tmp_path / f"chunk_000{i}.mp4")) for i in (0, 1)] == [12, 12]
    written = 6 * 12
    unfinished = len(video.read_frames(tmp_path / "chunk_0002.part.mp4"))
    assert unfinished >= written - 7  # 24 fps: a quarter second is six frames, one more waits for its end
    assert not (tmp_path / "chunk_0002.mp4").exists()


FULL_DISK = """
import resource, signal, sys, numpy as np
from helios_video.helios_core.join import Clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = np.random.default_rng(0).integers(0, 256, (33, 64, 96, 3), dtype=np.uint8)
clip = Clip.new(sys.argv[1]).append(noise[:2])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    clip.append(noise)
except OSError as error:
    print("OSError", len(clip.segments))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix feature")
def test_a_full_disk_leaves_finished_segments(tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["OSError", "1"], run.stderr
    assert len(video.read_frames(tmp_path / "chunk_0000.mp4")) == 2
    assert [p.name for p in tmp_path.glob("*.mp4") if ".part" not in p.name] == ["chunk_0000.mp4"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot make the folder"):
        Clip.new(tmp_path / "file" / "run")


def test_memory_stays_flat(tmp_path):
    """Appending and joining twenty chunks holds one block, not the video."""
    block = frames(33, size=(256, 256))
    tracemalloc.start()
    clip = Clip.new(tmp_path / "run")
    for _ in range(20):
        clip = clip.append(block)
    join(clip, tmp_path / "out.mp4")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < block.nbytes and video.probe(tmp_path / "out.mp4").frames == 660
