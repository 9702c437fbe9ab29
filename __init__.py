"""Helios video for ComfyUI, and without it (helios_core). Importing this imports no torch and nothing of ComfyUI."""

from .nodes.concat import ChunkConcat
from .nodes.history import HistoryMemory
from .nodes.loader import HeliosLoader
from .nodes.pyramid import HeliosNoise, PyramidDownsample
from .nodes.sample import DMDPyramidSample
from .nodes.text import T5Encode

NODE_CLASS_MAPPINGS = {
    "HeliosLoader": HeliosLoader,
    "T5Encode": T5Encode,
    "HistoryMemory": HistoryMemory,
    "HeliosNoise": HeliosNoise,
    "PyramidDownsample": PyramidDownsample,
    "DMDPyramidSample": DMDPyramidSample,
    "ChunkConcat": ChunkConcat,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HeliosLoader": "Helios Loader",
    "T5Encode": "Helios Prompt (T5 Encode)",
    "HistoryMemory": "Helios History Memory",
    "HeliosNoise": "Helios Noise",
    "PyramidDownsample": "Helios Pyramid Downsample",
    "DMDPyramidSample": "Helios DMD Pyramid Sample",
    "ChunkConcat": "Helios Chunk Concat",
}
WEB_DIRECTORY = "./web"
