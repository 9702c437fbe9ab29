"""Video files opened with PyAV: which stream is shown, and what may be said of it before its frames are decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction

BT709 = 1  # primaries, transfer and matrix all have this number in FFmpeg (AVCOL_PRI_, AVCOL_TRC_, AVCOL_SPC_BT709)
LIMITED = 1  # AVCOL_RANGE_MPEG, "tv"
DEFAULT, COVERS = 0x1, 0x400 | 0x800  # AV_DISPOSITION_DEFAULT; _ATTACHED_PIC and _TIMED_THUMBNAILS
LISTS = {"hls", "dash", "concat", "image2", "tty", "srt", "ass", "webvtt"}  # formats that name files, or that are text
NO_DECODER = "there is no decoder for what it holds; convert it, a video to H.264, a picture to PNG"
STRONGEST = 16  # how many times as wide as high, or as high as wide, a pixel may be


def open_video(path, **options: str):
    """A PyAV container to read. ValueError, with the file's name, for what is no video; only files are opened."""
    import av

    try:  # said to be a file: a colon in its name is no protocol
        file = av.open(f"file:{os.fspath(path)}", options={"protocol_whitelist": "file", **options})
    except FileNotFoundError:
        raise ValueError(f"no video file at {path}") from None
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is not a video that can be read: {said(error)}") from error
    if not file.streams.video or LISTS & set(file.format.name.split(",")):
        file.close()
        raise ValueError(f"{path} holds no video stream")
    return file


def is_video(path) -> bool:
    """Whether there is a video stream in a file."""
    try:
        open_video(path).close()
    except ValueError:
        return False
    return True


def said(error: Exception) -> str:
    """FFmpeg's words without its numbers and the path, which the caller's message has."""
    return getattr(error, "strerror", None) or str(error)


def shown_stream(file, path):
    """The stream that a player shows: the one marked as default, else the first; covers and thumbnails are none.

    ValueError where there is no other stream, and where this FFmpeg has no decoder for it.
    """
    streams = [stream for stream in file.streams.video if not stream.disposition.value & COVERS]
    if not streams:
        raise ValueError(f"{path} holds no video stream, only a cover picture")
    stream = next((stream for stream in streams if stream.disposition.value & DEFAULT), streams[0])
    if stream.codec_context is None:
        raise ValueError(f"{path}: {NO_DECODER}")
    return stream


def packets_of(file, streams, path) -> Iterator:
    """The packets of a stream, or of several as they come. ValueError where the file is damaged."""
    import av

    try:
        for packet in file.demux(streams):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is damaged: {said(error)}") from error


def frames_of(file, stream, path) -> Iterator:
    """The decoded frames of one stream. ValueError, with the number of frames that were whole, where it is damaged."""
    import av

    count = 0
    try:
        for frame in file.decode(stream):
            if getattr(frame, "is_corrupt", False):
                raise ValueError(f"{path} is damaged after frame {count}; repair it, or cut it there")
            yield frame
            count += 1
    except av.error.DecoderNotFoundError as error:
        raise ValueError(f"{path}: {NO_DECODER}") from error
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is damaged after frame {count}: {said(error)}; repair it, or cut it there") from error


def square_size(width: int, height: int, ratio: Fraction | None, path) -> tuple[int, int]:
    """(width, height) with square pixels; like players, the shorter side of a pixel is lengthened, to an even number.

    ratio: a pixel's width to its height. ValueError for one that no camera writes.
    """
    if not ratio or ratio == 1:
        return width, height
    if not Fraction(1, STRONGEST) <= ratio <= STRONGEST:
        raise ValueError(f"{path}: its pixels are said to be {ratio} times as wide as high; write it anew")
    if ratio > 1:
        return 2 * round(width * ratio / 2), height
    return width, 2 * round(height / ratio / 2)
