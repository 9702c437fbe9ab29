"""Video files: colours, tags (M6), metadata, frame rate, cutting, errors before the work, and full disks."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from helios_video.helios_core.join import video

COLOURS = [
    (0, 0, 0),
    (255, 255, 255),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 0, 255),
]


def ramp(frames=4):
    """[f, 64, 128, 3]: primaries, a grey ramp and random colours in 16x16 patches that change with every frame."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (frames, 4, 8, 3))
    patches[:, 0] = COLOURS
    patches[:, 1] = np.linspace(0, 255, 8).round()[:, None]
    return patches.repeat(16, 1).repeat(16, 2).astype(np.uint8)


def expected_yuv(rgb):
    """BT.709, limited range, from the standard's luma coefficients."""
    r, g, b = np.moveaxis(np.asarray(rgb, dtype=float) / 255, -1, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748


def test_m6_bt709_tags(tmp_path):
    path = tmp_path / "a.mp4"
    video.write_video(path, ramp())
    info = video.probe(path)
    assert (info.codec, info.pixel_format) == ("h264", "yuv420p")
    assert (info.colorspace, info.primaries, info.transfer, info.color_range) == (1, 1, 1, 1)  # bt709 x3, tv
    assert b"colrnclx\x00\x01\x00\x01\x00\x01" in path.read_bytes()  # and in the container, where browsers look


def test_m6_pixels_are_bt709_not_bt601(tmp_path):
    frames = ramp(1)
    video.write_video(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as file:
        planes = next(file.decode(video=0)).to_ndarray()  # [96, 128]: y, then u and v as flat quarters
    y, u, v = planes[:64], planes[64:80].reshape(32, 64), planes[80:].reshape(32, 64)
    want = expected_yuv(frames[0, 8::16, 8::16])
    for plane, step, value in ((y, 16, want[0]), (u, 8, want[1]), (v, 8, want[2])):
        assert np.abs(plane[step // 2 :: step, step // 2 :: step] - value).max() < 4


def test_colours_come_back(tmp_path):
    frames = ramp()
    video.write_video(tmp_path / "a.mp4", frames)
    back = video.read_frames(tmp_path / "a.mp4")
    assert back.shape == frames.shape and back.dtype == np.uint8
    centres = (slice(None), slice(8, None, 16), slice(8, None, 16))
    assert np.abs(back[centres].astype(int) - frames[centres]).max() <= 6


def test_untagged_and_bt601_files_decode_by_their_own_matrix(tmp_path):
    path, frames = tmp_path / "old.mp4", ramp(1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frames[0], format="rgb24")))
        file.mux(stream.encode())
    back = video.read_frames(path)
    assert np.abs(back[0, 8::16, 8::16].astype(int) - frames[0, 8::16, 8::16]).max() <= 6


def test_metadata_survives(tmp_path):
    workflow = {"nodes": [{"id": i, "type": "T5Encode", "text": 'a "red" circle \u00e9'} for i in range(3000)]}
    video.write_video(
        tmp_path / "a.mp4", ramp(1), metadata={"workflow": workflow, "prompt": {"1": {}}, "note": "[draft"}
    )
    video.remux([tmp_path / "a.mp4"], tmp_path / "b.mp4", metadata={"workflow": workflow})
    read = video.read_metadata(tmp_path / "a.mp4")
    assert read["workflow"] == workflow and read["prompt"] == {"1": {}} and read["note"] == "[draft"
    assert video.read_metadata(tmp_path / "b.mp4")["workflow"] == workflow


@pytest.mark.parametrize(("fps", "rate"), [(24, Fraction(24)), (16, Fraction(16)), (23.976, Fraction(2997, 125))])
def test_constant_frame_rate(tmp_path, fps, rate):
    video.write_video(tmp_path / "a.mp4", ramp(10), fps=fps)
    info = video.probe(tmp_path / "a.mp4")
    assert (info.fps, info.frames) == (rate, 10)
    with av.open(str(tmp_path / "a.mp4")) as file:
        times = [packet.pts * packet.time_base for packet in file.demux(video=0) if packet.size]
        assert np.allclose([float(t * rate) for t in times], range(10), atol=0.01)
        assert file.duration / 1e6 == pytest.approx(float(10 / rate), abs=2e-3)


def test_read_a_part(tmp_path):
    video.write_video(tmp_path / "a.mp4", ramp(9))
    whole = video.read_frames(tmp_path / "a.mp4")
    assert np.array_equal(video.read_frames(tmp_path / "a.mp4", start=3, count=4), whole[3:7])
    with pytest.raises(ValueError, match="no frame 9"):
        video.read_frames(tmp_path / "a.mp4", start=9)


def test_same_frames_same_packets(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        video.write_video(tmp_path / name, ramp(5))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_to_uint8_rounds_and_refuses_nan():
    assert video.to_uint8(np.array([[[[0.0, 0.5, 1.2]]]])).tolist() == [[[[0, 128, 255]]]]
    with pytest.raises(ValueError, match="NaN"):
        video.to_uint8(np.array([[[[0.0, np.nan, 1.0]]]]))


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((2, 64, 63, 3), np.uint8, "63x64"),
        ((2, 63, 64, 3), np.uint8, "64x63"),
        ((2, 64, 64), np.uint8, r"\[2, 64, 64\]"),
        ((2, 64, 64, 4), np.uint8, r"\[2, 64, 64, 4\]"),
        ((0, 64, 64, 3), np.uint8, "at least one frame"),
        ((2, 64, 64, 3), np.float32, "float32"),
    ],
)
def test_bad_frames(tmp_path, shape, dtype, says):
    with pytest.raises(ValueError, match=says):
        video.write_video(tmp_path / "a.mp4", np.zeros(shape, dtype))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_outputs_are_named_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    for path, says in (
        (tmp_path / "none" / "a.mp4", "not an existing folder"),
        (tmp_path / "file" / "a.mp4", "not an existing folder"),
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "a.gif", "must end in .mp4"),
        (tmp_path / ("x" * 300 + ".mp4"), "its name is too long, 304 bytes"),
    ):
        with pytest.raises(ValueError, match=f"(?i){says}"):
            video.check_writable(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]
    assert video.check_writable(tmp_path / "a.mp4") == tmp_path / "a.mp4"
    assert not (tmp_path / "a.mp4").exists()


def test_check_writable_leaves_an_existing_file_alone(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")
    video.check_writable(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video at all" * 10)
    for path in (tmp_path / "a.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(ValueError, match=path.name):
            video.read_frames(path)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 1e6])
def test_bad_fps(fps):
    with pytest.raises(ValueError, match="fps"):
        video.frame_rate(fps)


def test_videos_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    """Written or joined; what was there stays if that fails on the way."""
    video.write_video(tmp_path / "a.mp4", ramp(5))
    before = (tmp_path / "a.mp4").read_bytes()

    real = video.VideoWriter.write

    def full(writer, frames):
        real(writer, frames)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video.VideoWriter, "write", full)
    with pytest.raises(OSError, match="No space"):
        video.write_video(tmp_path / "a.mp4", ramp(3))
    with pytest.raises(ValueError, match="no video file at"):
        video.remux([tmp_path / "a.mp4", tmp_path / "none.mp4"], tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from helios_video.helios_core.join import video

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def write():
    with video.VideoWriter(path, 64, 64, fragmented=True) as writer:
        writer.write(frames)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
frames = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), dtype=np.uint8)
write()
size = path.stat().st_size
for short in (300, 3000, 12000, 30000, size - 100):
    limit(size - short)
    try:
        write()
        print(short, "passed for whole")
    except OSError as error:
        pass
    limit(resource.RLIM_INFINITY)
write()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on a file's size")
def test_a_segment_that_a_full_disk_cuts_is_no_finished_one(tmp_path):
    """FFmpeg writes the last fragment as the file is closed, and says nothing if that fails."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "a.mp4"], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stdout + done.stderr
