"""ComfyUI's workflow files, run without ComfyUI."""

from . import dates, loops, unroll
from .context import Progress, Run, current
from .files import VideoFile
from .format import is_api, is_ui
from .graph import BLOCKED
from .run import run
from .standins import free_name

__all__ = [
    "BLOCKED",
    "Progress",
    "Run",
    "VideoFile",
    "current",
    "dates",
    "free_name",
    "is_api",
    "is_ui",
    "loops",
    "run",
    "unroll",
]
