"""Decoded chunks become a video: how they meet, the files they lie in, and the file they become."""

from . import boundary, hls, small, video
from .behind import Behind
from .boundary import FRAMES, POLICIES, Boundary, Tail, follow
from .clip import Clip, check_encoder, join, published_length
from .kept import append_kept, restore
from .passed_on import pass_on
from .video import check_writable, frame_rate, read_frames, read_metadata, to_uint8

__all__ = [
    "Behind",
    "Boundary",
    "Clip",
    "FRAMES",
    "POLICIES",
    "Tail",
    "append_kept",
    "boundary",
    "check_encoder",
    "check_writable",
    "follow",
    "frame_rate",
    "hls",
    "join",
    "pass_on",
    "published_length",
    "read_frames",
    "read_metadata",
    "restore",
    "small",
    "to_uint8",
    "video",
]
