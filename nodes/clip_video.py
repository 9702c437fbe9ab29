"""VIDEO of a clip: the chunks are joined into one file when somebody wants the file, not at every chunk."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from . import host, kept

# What a VIDEO answers in every version of ComfyUI that is known; newer ones add to it.
NAMES = frozenset(
    ("get_components", "save_to", "as_trimmed", "get_stream_source", "get_active_trim_window", "get_bit_depth")
    + ("get_duration", "get_container_format", "get_color_space")
)


class ClipVideo:
    """Size, length and rate are the clip's own; what else VIDEO has is asked of ComfyUI's VideoFromFile, once called.

    Looking an attribute up touches no disk and never raises anything but AttributeError: ComfyUI asks every cached
    output for names such as `patcher`, in a thread that an error would end.
    """

    def __init__(self, clip, num_frames: int = 0):
        self._clip, self._num_frames = clip, min(num_frames or clip.num_frames, clip.num_frames)

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._clip.size

    def get_frame_count(self) -> int:
        """Frames, after the cut."""
        return self._num_frames

    def get_frame_rate(self) -> Fraction:
        """Frames per second."""
        return self._clip.fps

    def __getattr__(self, name: str):
        if name not in _names():
            raise AttributeError(f"a clip's VIDEO has no {name}")
        return lambda *given, **more: getattr(self._file(), name)(*given, **more)

    def _file(self):
        """ComfyUI's VIDEO of the joined file. ValueError where a chunk is gone; OSError when the disk fails."""
        from ..helios_core.workflow import VideoFile

        api = host.comfy(host.API)
        return (api.InputImpl.VideoFromFile if api else VideoFile)(str(self._joined()))

    def _joined(self) -> Path:
        from ..helios_core.join import join

        path = self._clip.folder / f"joined_{self._clip.segments[-1].path.stem}_{self._num_frames}.mp4"
        if not path.exists():
            check_whole(self._clip)
            join(self._clip, path, num_frames=self._num_frames)
        return path


def check_whole(clip) -> None:
    """Puts chunks back that are gone from temp, where they were kept elsewhere. ValueError where some are not."""
    from ..helios_core.join import restore

    restore(clip, kept.store())
    if missing := clip.missing:
        raise ValueError(
            f"{clip.folder} no longer holds {missing}; run the chunks again. ComfyUI does so once it has forgotten "
            "their nodes: Unload Models and Execution Cache in its menu, or a restart"
        )


def _names() -> frozenset[str]:
    api = host.comfy(host.API)
    return NAMES | {name for name in dir(api.Input.Video) if not name.startswith("_")} if api else NAMES


def video(clip, num_frames: int = 0) -> ClipVideo:
    """A VIDEO of a clip, cut after num_frames (0 = all, as is a number beyond the clip's length)."""
    if api := host.comfy(host.API):
        api.Input.Video.register(ClipVideo)
    return ClipVideo(clip, num_frames)
