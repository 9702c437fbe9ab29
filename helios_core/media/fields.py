"""Interlaced clips, as television cameras and tapes make them: their frames woven from two fields become whole ones."""

from __future__ import annotations

from collections.abc import Iterator

from .container import said

FILTER = "bwdif"  # FFmpeg's; a frame for a frame, and only those that say that they are interlaced


def whole_frames(frames: Iterator, path) -> Iterator:
    """The same PyAV frames, interlaced ones deinterlaced; nothing is done before the first of these.

    ValueError for frames that FFmpeg's filter does not take. path: for messages.
    """
    import av

    if FILTER not in av.filter.filters_available:
        yield from frames
        return
    graph = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        graph = graph or _graph(frame)
        yield from _through(graph, frame, path)
    if graph is not None:
        yield from _through(graph, None, path)


def _graph(frame):
    import av

    graph = av.filter.Graph()
    size = {"width": frame.width, "height": frame.height}
    source = graph.add_buffer(**size, format=frame.format, time_base=frame.time_base)
    weave = graph.add(FILTER, "mode=send_frame:deint=interlaced")
    source.link_to(weave)
    weave.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _through(graph, frame, path) -> Iterator:
    """What the filter has finished once it has that frame, None at the end; it is one behind."""
    import av

    try:
        graph.push(frame)
        while True:
            yield graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):  # it wants the next one
        return
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: its interlaced frames cannot be made whole: {said(error)}") from error
