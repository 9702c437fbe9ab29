"""A clip as players take it while it grows: an HLS event playlist (RFC 8216) over fragmented MP4, or Media Source.

The segments on disk are such files already, each with its own head and times from 0. Players want one head (`head`),
and of every segment its fragments with times that go on (`part`). Only a few numbers are written anew, no picture is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from .clip import Clip

HEAD, LIST, SUFFIX = "head.mp4", "video.m3u8", ".m4s"
CHUNK = 33  # frames, of the longest segment there will be but for such as others make
TYPES = {".m3u8": "application/vnd.apple.mpegurl", ".mp4": "video/mp4", SUFFIX: "video/iso.segment"}


def playlist(clip: Clip, ended: bool) -> str:
    """The event playlist of a clip's segments so far. ended: no more will come."""
    seconds = [float(segment.frames / clip.fps) for segment in clip.segments]
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{math.ceil(max([CHUNK / clip.fps, *seconds]))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{HEAD}"',
    ]
    for i, length in enumerate(seconds):
        lines += [f"#EXTINF:{length:.6f},", f"{i}{SUFFIX}"]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]) + "\n"


def head(clip: Clip) -> bytes:
    """What stands before all fragments. ValueError for an empty clip or a broken file; OSError where it is gone."""
    if not clip.segments:
        raise ValueError("the clip has no chunk yet")
    data = clip.segments[0].path.read_bytes()
    return b"".join(data[start:end] for kind, start, end in boxes(data) if kind in (b"ftyp", b"moov"))


def codec(head: bytes) -> str:
    """What Media Source calls the encoding, such as avc1.64001f. ValueError where the head is none of H.264."""
    place = head.find(b"avcC")
    if place < 0:
        raise ValueError("this is no H.264 in an MP4")
    return f"avc1.{head[place + 5 : place + 8].hex()}"


def part(clip: Clip, index: int) -> bytes:
    """The fragments of segment `index`, with times that follow on those before it.

    ValueError for no such segment or a broken file; OSError where it is gone.
    """
    if not 0 <= index < len(clip.segments):
        raise ValueError(f"chunk {index}: the video has {len(clip.segments)}")
    data = clip.segments[index].path.read_bytes()
    (moov,) = [data[start:end] for kind, start, end in boxes(data) if kind == b"moov"] or [b""]
    before = sum(segment.frames for segment in clip.segments[:index])
    ticks = before * timescale(moov) / clip.fps
    if ticks.denominator != 1:
        raise ValueError(f"{clip.segments[index].path.name}: its clock of {timescale(moov)} does not fit {clip.fps}")
    kept = bytearray().join(data[start:end] for kind, start, end in boxes(data) if kind in (b"moof", b"mdat"))
    for number, (kind, start, end) in enumerate(list(boxes(kept))):
        if kind == b"moof":
            _shift(kept, start + 8, end, ticks.numerator, 1 + index * 10_000 + number)
    return bytes(kept)


def timescale(moov: bytes) -> int:
    """Ticks per second of the first track. ValueError where there is none."""
    for start, _ in found(moov, 0, len(moov), b"moov", b"trak", b"mdia", b"mdhd"):
        at = start + (20 if moov[start] == 1 else 12)
        return struct.unpack_from(">I", moov, at)[0]
    raise ValueError("this is no MP4 with a video in it")


def _shift(data: bytearray, start: int, end: int, ticks: int, number: int) -> None:
    """Writes a later time and another number into the moof between two places."""
    for at, _ in found(data, start, end, b"mfhd"):
        struct.pack_into(">I", data, at + 4, number)
    for at, _ in found(data, start, end, b"traf", b"tfdt"):
        form = ">Q" if data[at] == 1 else ">I"
        struct.pack_into(form, data, at + 4, struct.unpack_from(form, data, at + 4)[0] + ticks)


def found(data, start: int, end: int, kind: bytes, *inside: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of boxes begin and end, by their kinds from the outermost inwards."""
    for name, begin, stop in boxes(data, start, end):
        if name == kind:
            yield from found(data, begin + 8, stop, *inside) if inside else [(begin + 8, stop)]


def boxes(data, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(Kind, begin, end) of the MP4 boxes between two places. ValueError where they do not fit each other."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > end:  # no file of ours has a box of 4 GB, nor one without an end
            raise ValueError(f"a box of {size} bytes at {start} does not fit a file of {end}")
        yield kind, start, start + size
        start += size
