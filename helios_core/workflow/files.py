"""ComfyUI's VIDEO, IMAGE and AUDIO of files: what the stand-ins hand on."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

from .. import media
from ..join import pass_on


class VideoFile:
    """VIDEO: a file on disk, with what ComfyUI's VideoFromFile has."""

    def __init__(self, path):
        self.path = Path(path)

    def get_stream_source(self) -> str:
        """The file's path."""
        return str(self.path)

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        info = media.probe(self.path)
        return info.width, info.height

    def get_duration(self) -> float:
        """Seconds."""
        info = media.probe(self.path)
        return float(info.frames / info.fps)

    def get_components(self):
        """An object with images [f h w 3] float32 0 to 1, audio and frame_rate.

        Frames of a variable rate are repeated to a constant one, so that they fit the sound. ComfyUI takes each once.
        """
        images = to_image(media.read_frames(self.path))
        return SimpleNamespace(images=images, audio=read_audio(self.path), frame_rate=self.frame_rate)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(media.probe(self.path).fps)

    def save_to(self, path, format="auto", codec="auto", metadata=None) -> None:
        """Copies the video and its sound to `path`, without encoding it again where an mp4 can hold it; metadata goes
        along."""
        pass_on(self.path, path, metadata=metadata)


def to_image(frames):
    """uint8 [f h w 3] -> IMAGE, float32 0 to 1."""
    import torch

    return torch.from_numpy(frames).float() / 255


def read_audio(path):
    """AUDIO, {"waveform": [1 channels samples], "sample_rate"}; None without sound. What cannot be heard is told."""
    import torch

    sound, why = media.read_sound(path)
    if sound is None:
        if why:
            print(f"{why}; it is left out", file=sys.stderr)
        return None
    return {"waveform": torch.from_numpy(sound.samples)[None], "sample_rate": sound.rate}
