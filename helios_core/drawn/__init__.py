"""Drawn videos, which helios-tiny is made of, and how well a model does what their captions say."""

from . import bench, reading, scenes, words
from .against_scene import ChunkReading, expected_contrast, read_chunk
from .bench import ATTRIBUTES, held_out_scenes, render
from .per_video import PerVideoDrift
from .scenes import SIZE, Scene, draw, draw_varied, random_scene
from .tracks import PATHS, Tracked, draw_track, random_tracked, read_followed

__all__ = [
    "ATTRIBUTES",
    "PATHS",
    "SIZE",
    "ChunkReading",
    "PerVideoDrift",
    "Scene",
    "Tracked",
    "bench",
    "draw",
    "draw_track",
    "draw_varied",
    "expected_contrast",
    "held_out_scenes",
    "random_scene",
    "random_tracked",
    "read_chunk",
    "read_followed",
    "reading",
    "render",
    "scenes",
    "words",
]
