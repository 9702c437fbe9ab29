"""Pictures, clips and their sound as a player shows them: turned upright, with square pixels, in 8-bit BT.709 colours;
the one place where files of others are opened."""

from .colour import to_planes
from .container import BT709, LIMITED, open_video, packets_of, shown_stream
from .picture import PICTURES, UNREADABLE, is_picture, read_layers
from .sound import Sound, read_sound, sound_stream, write_sound
from .video import VIDEOS, VideoInfo, iter_frames, probe, read_ends, read_frames, read_metadata, read_picture

__all__ = [
    "BT709",
    "LIMITED",
    "PICTURES",
    "Sound",
    "UNREADABLE",
    "VIDEOS",
    "VideoInfo",
    "is_picture",
    "iter_frames",
    "open_video",
    "packets_of",
    "probe",
    "read_ends",
    "read_frames",
    "read_layers",
    "read_metadata",
    "read_picture",
    "read_sound",
    "shown_stream",
    "sound_stream",
    "to_planes",
    "write_sound",
]
