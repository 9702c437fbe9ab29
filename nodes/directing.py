"""What a score says of the chunk in work: its settings over a node's own, its picture, and where the video ends."""

from __future__ import annotations

from dataclasses import replace

from . import core, host, sockets

ENDED = "helios_end"  # on a LATENT without frames: the score has ended the video before this chunk


def direction(schedule, chunk: int):
    """text.Direction of a chunk by a text.Schedule, or of none; `end` where the video is over by then."""
    if schedule is None:
        return core.text.Direction()
    end = schedule.source.end
    return core.text.Direction(end=True) if end is not None and chunk >= end else schedule.source.direction(chunk)


def picture_path(name: str):
    """The file of a picture in the input folder. ValueError where there is none."""
    path = core.disk.inside(host.input_folder(), name)
    if not path.is_file():
        raise ValueError(f"no picture {name!r} in {host.input_folder()}; put it there, or name one that is")
    return path


def read_picture(name: str):
    """A picture of the input folder, uint8 [1 h w 3]. ValueError where there is none, or it is no picture."""
    return core.media.read_picture(picture_path(name))[None]


def check_text(text: str):
    """text.PromptSchedule of a score whose pictures are there. ValueError."""
    schedule = core.text.PromptSchedule.parse(text)
    for name in schedule.pictures:
        picture_path(name)
    return schedule


def refuse_settings(negative) -> None:
    """ValueError where a schedule of negative prompts has settings, which would be ignored."""
    schedule = sockets.schedule(negative)
    if schedule is not None and schedule.source.has_settings:
        raise ValueError("negative: settings in brackets are read from the positive schedule; put them there")


def ended(history, given):
    """What a sampler gives once the video is over: a LATENT without frames, and the history as it is."""
    return no_frames(history), replace(history, given=given)


def no_frames(history) -> dict:
    """A LATENT of no frames, which ChunkConcat adds nothing for."""
    return {"samples": sockets.tensor(history.history.window)[:, :, :0], ENDED: True}
