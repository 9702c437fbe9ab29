"""A clip handed on as it came: its packets are copied, with their times, turning, pixel shape, colours and sound."""

from __future__ import annotations

from collections.abc import Iterator

from ..disk import safe_files
from ..media import (
    is_picture,
    iter_frames,
    open_video,
    packets_of,
    probe,
    read_metadata,
    read_sound,
    shown_stream,
    sound_stream,
)
from .video import WHOLE, VideoWriter, as_text, create

# Of the container, and how the source was made: the new file says that of itself.
NOT_PASSED = {"major_brand", "minor_version", "compatible_brands", "encoder", "prompt", "workflow", "helios"}


def pass_on(path, out, *, metadata: dict | None = None) -> None:
    """The clip at `path` as the mp4 `out`, which appears whole or not at all; encoded anew only where an mp4 cannot
    hold what it is made of. metadata: beside the file's own, such as its title. ValueError if it cannot be read."""
    found = {} if is_picture(path) else read_metadata(path)
    metadata = {**{key: value for key, value in found.items() if key not in NOT_PASSED}, **(metadata or {})}
    with safe_files.replacing(out) as part:
        if is_picture(path) or not _copy(path, part, metadata):
            _encode(path, part, metadata)


def _copy(path, part, metadata: dict) -> bool:
    """Whether the packets could be copied. ValueError where the clip is damaged."""
    with open_video(path) as source, create(part, WHOLE) as file:
        file.metadata.update(as_text(metadata))
        video, sound = shown_stream(source, path), sound_stream(source)
        targets = {s.index: t for s in (video, sound) if s is not None and (t := _target(file, s)) is not None}
        if video.index not in targets:
            return False
        kept = [stream for stream in (video, sound) if stream is not None and stream.index in targets]
        for packet in _with_order(packets_of(source, kept, path)):
            if packet.dts is None:  # a bare stream, without times
                return False
            packet.stream = targets[packet.stream.index]
            file.mux(packet)
    return True


def _with_order(packets: Iterator) -> Iterator:
    """The same packets; those at the beginning that do not say when they are decoded, as Matroska's, are told."""
    waiting = {}
    for packet in packets:
        index = packet.stream.index  # who takes the packet changes it
        held = waiting.setdefault(index, [])
        if held is None:
            yield packet
        elif packet.dts is None:
            held.append(packet)
        else:
            for back, early in enumerate(reversed(held), 1):
                early.dts = packet.dts - back * (early.duration or 1)
            yield from [*held, packet]
            waiting[index] = None
    for held in waiting.values():
        yield from held or ()


def _target(file, stream):
    """A stream for its packets; None if an mp4 does not hold its codec."""
    import av

    try:
        return file.add_stream_from_template(stream, opaque=True)
    except (ValueError, av.error.FFmpegError):
        return None


def _encode(path, part, metadata: dict) -> None:
    info = probe(path)
    sound = None if is_picture(path) else read_sound(path)[0]
    with VideoWriter(part, info.width, info.height, fps=info.fps, metadata=metadata, sound=sound) as writer:
        for frame in iter_frames(path):
            writer.write(frame[None])
