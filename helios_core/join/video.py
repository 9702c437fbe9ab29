"""Writing video files with PyAV: H.264, yuv420p, bt709, constant frame rate; what reads them is in `media`.

Unusual here: the encoder makes no B-frames and looks no frame ahead, so packet i is frame i. A file can then be
written fragment by fragment (a killed process loses the fragment in hand), joined by copying packets and cut at any
frame without encoding anything twice. Frames are numpy uint8 [f, h, w, 3], RGB, everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..disk import safe_files
from ..media import (  # noqa: F401 - whoever writes a video reads it again
    BT709,
    LIMITED,
    Sound,
    VideoInfo,
    iter_frames,
    open_video,
    probe,
    read_ends,
    read_frames,
    read_metadata,
    to_planes,
    write_sound,
)

FPS = 24
# zerolatency: no B-frames, no lookahead, slices instead of frame threads. The slice count is fixed so that the same
# frames give the same bytes whatever the number of cores. On real footage at 832x480 "veryfast" was 3 times as fast as
# "medium" for 6 % more bytes and 0.6 dB less.
ENCODER = {"preset": "veryfast", "tune": "zerolatency", "threads": "4"}
CRF = 16
FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "250000", "flush_packets": "1"}
WHOLE = {"movflags": "use_metadata_tags+faststart"}


def frame_rate(fps: float | Fraction) -> Fraction:
    """`fps` as a fraction (23.976 -> 2997/125). ValueError unless it is above 0, at least 1/1001, and at most 1000."""
    if not 0 < fps <= 1000 or not (rate := Fraction(fps).limit_denominator(1001)):
        raise ValueError(f"fps must be above 0 and at most 1000, got {fps}; one frame in 1001 seconds is the least")
    return rate


def to_uint8(images) -> np.ndarray:
    """Images [f, h, w, 3] with values in [0, 1] (numpy or torch) -> uint8. ValueError names NaN and infinity."""
    images = np.asarray(images, dtype=np.float32)
    if not np.isfinite(images).all():
        raise ValueError("the images hold NaN or infinity; the chunk they were decoded from is broken")
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def check_frames(frames: np.ndarray) -> tuple[int, int]:
    """(width, height) of uint8 [f, h, w, 3]. ValueError for another shape or type, no frames, or an odd size."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [f, h, w, 3], got {frames.dtype} {list(frames.shape)}")
    count, height, width, _ = frames.shape
    if not count:
        raise ValueError("frames must hold at least one frame, got none")
    if width % 2 or height % 2:
        raise ValueError(f"H.264 in yuv420p needs an even width and height, got {width}x{height}; crop or resize it")
    return width, height


def encoding() -> tuple:
    """What a segment's bytes depend on beside its frames and rate: only files of one encoding can be joined."""
    import av

    return av.__version__, ENCODER, FRAGMENTS, CRF


def check_writable(path: str | os.PathLike) -> Path:
    """Fails before the long work: ValueError unless an mp4 file can be created at `path`. Leaves nothing behind."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"the output must end in .mp4, got {path.name!r}")
    return safe_files.check_writable(path)


def create(path, options: dict[str, str]):
    """A PyAV container to write: an mp4, whatever its name. OSError where it cannot be made."""
    import av

    return av.open(f"file:{os.fspath(path)}", "w", format="mp4", options=options)


class VideoWriter:
    """Encodes frames into one mp4 as they come; a context manager.

    `fragmented` writes quarter-second fragments, each complete on disk as soon as it is full; otherwise the index is
    one block at the front, as players and web pages like it. sound: what is heard with the frames, written at the end.
    OSError when the disk fails or is full.
    """

    def __init__(
        self,
        path,
        width: int,
        height: int,
        *,
        fps=FPS,
        fragmented=False,
        metadata=None,
        crf=CRF,
        sound: Sound | None = None,
    ):
        self.path, self.size, self.frames, rate = Path(path), (width, height), 0, frame_rate(fps)
        self._planes_of = to_planes(width, height)
        self._file = create(path, FRAGMENTS if fragmented else WHOLE)
        self._file.metadata.update(as_text(metadata))
        self._stream = self._file.add_stream("libx264", rate=rate, options={**ENCODER, "crf": str(crf)})
        codec = self._stream.codec_context
        codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuv420p", 1 / rate
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED
        self._fill_sound = None if sound is None else write_sound(self._file, sound)

    def write(self, frames: np.ndarray) -> None:
        """Appends uint8 [f, h, w, 3]. ValueError if size or type differ from the file's."""
        if check_frames(frames) != self.size:
            raise ValueError(f"the video is {self.size}, got frames of {check_frames(frames)} (width, height)")
        for pixels in frames:
            frame = self._planes_of(pixels)
            frame.pts, frame.time_base = self.frames, self._stream.codec_context.time_base
            self._file.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Writes what the encoder still holds and the end of the file. OSError unless all frames are in it: of a disk
        that is full at the last fragment, FFmpeg says nothing."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.mux(self._stream.encode())
            if self._fill_sound is not None:
                self._fill_sound()
        finally:
            file.close()
        held = _count_whole(self.path)
        if held != self.frames:
            raise OSError(f"{self.path} was cut short: {held} of {self.frames} frames are in it; is the disk full?")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except OSError:
            if error is None:  # else the first error is the one to report
                raise


def write_video(path, frames: np.ndarray, *, fps=FPS, metadata: dict | None = None, sound: Sound | None = None) -> None:
    """Writes uint8 [f, h, w, 3] as one mp4, with sound if there is one; it appears whole or not at all.

    ValueError before any work if `path` cannot be written; OSError when the disk fails.
    """
    width, height = check_frames(frames)
    with safe_files.replacing(check_writable(path)) as part:
        with VideoWriter(part, width, height, fps=fps, metadata=metadata, sound=sound) as writer:
            writer.write(frames)


def _count_whole(path: Path) -> int:
    """Frames of a file just written that are there to their last byte."""
    import av

    try:
        with open_video(
            path, probesize="32"
        ) as file:  # its header says all; by itself FFmpeg decodes frames to find out
            return sum(packet.size > 0 and not packet.is_corrupt for packet in file.demux(file.streams.video[0]))
    except (ValueError, av.error.FFmpegError):
        return 0


def as_text(metadata: dict | None) -> dict[str, str]:
    """What a file keeps: text as it is, all else as JSON."""
    items = (metadata or {}).items()
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in items}


def remux(paths: Iterable, out, *, metadata: dict | None = None, num_frames=0, overwrite=True) -> int:
    """Joins files of one VideoWriter setting into `out`, packet by packet, and returns the frames written.

    num_frames: cut after so many frames (0 = all); as no packet refers forward, nothing is encoded again. `out`
    appears whole or not at all. ValueError if a file's encoding differs from the first one's.
    """
    with safe_files.replacing(out, overwrite=overwrite) as part:
        written = _join(paths, part, metadata, num_frames)
    return written


def _join(paths: Iterable, part: Path, metadata: dict | None, num_frames: int) -> int:
    written, first, target = 0, None, None
    with create(part, WHOLE) as file:
        file.metadata.update(as_text(metadata))
        for path, stream, packet in _packets(paths):
            traits = (bytes(stream.codec_context.extradata or b""), stream.average_rate)
            if first is None:
                first, target = traits, file.add_stream_from_template(stream, opaque=True)
                with suppress(RuntimeError):  # PyAV 14 refuses, and counts in 1/90000 seconds
                    target.time_base = stream.time_base
            if traits != first:
                raise ValueError(f"cannot join {path}: its size, frame rate or encoding differs from the first")
            packet.stream, packet.time_base = target, 1 / stream.average_rate
            packet.pts = packet.dts = written
            packet.duration = 1
            file.mux(packet)
            written += 1
            if written == num_frames:
                break
    if not written:
        raise ValueError("there is nothing to join: the clip has no frames")
    return written


def _packets(paths: Iterable) -> Iterator[tuple]:
    for path in paths:
        with open_video(path) as file:
            stream = file.streams.video[0]
            for packet in file.demux(stream):
                if packet.size and packet.pts != packet.dts:
                    raise ValueError(f"cannot join {path}: its frames are reordered; only this pack's segments join")
                if packet.size:
                    yield path, stream, packet
