"""ComfyUI's workflow files, run without ComfyUI."""

from . import loops, unroll
from .context import Progress, Run, current
from .files import VideoFile
from .graph import BLOCKED
from .run import run
from .standins import free_name

__all__ = ["BLOCKED", "Progress", "Run", "VideoFile", "current", "free_name", "loops", "run", "unroll"]
