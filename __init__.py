"""Helios video for ComfyUI, and without it (helios_core). Importing this imports no torch and nothing of ComfyUI."""

from .helios_core import interrupts

interrupts.stop_at_once()

from .nodes import routes, talk  # noqa: E402
from .nodes.concat import ChunkConcat  # noqa: E402
from .nodes.control import HeliosControl  # noqa: E402
from .nodes.drift import AntiDrift  # noqa: E402
from .nodes.history import HeliosLoadHistory, HeliosSaveHistory, HistoryMemory  # noqa: E402
from .nodes.loader import HeliosLoader  # noqa: E402
from .nodes.loop import HeliosLoopEnd, HeliosLoopStart  # noqa: E402
from .nodes.lora import HeliosLora  # noqa: E402
from .nodes.plot import HeliosLatentPlot  # noqa: E402
from .nodes.pyramid import HeliosNoise, PyramidDownsample  # noqa: E402
from .nodes.robustness import HeliosLatentRobustness  # noqa: E402
from .nodes.sample import DMDPyramidSample  # noqa: E402
from .nodes.text import HeliosPromptSchedule, T5Encode  # noqa: E402
from .nodes.training import HeliosTrainLora  # noqa: E402
from .nodes.ul import HeliosULEncode, HeliosULLoader, ULDecoder  # noqa: E402

NODE_CLASS_MAPPINGS = {
    "HeliosLoader": HeliosLoader,
    "HeliosLora": HeliosLora,
    "HeliosControl": HeliosControl,
    "HeliosTrainLora": HeliosTrainLora,
    "T5Encode": T5Encode,
    "HistoryMemory": HistoryMemory,
    "HeliosNoise": HeliosNoise,
    "PyramidDownsample": PyramidDownsample,
    "HeliosLatentPlot": HeliosLatentPlot,
    "DMDPyramidSample": DMDPyramidSample,
    "AntiDrift": AntiDrift,
    "ChunkConcat": ChunkConcat,
    "HeliosSaveHistory": HeliosSaveHistory,
    "HeliosLoadHistory": HeliosLoadHistory,
    "HeliosPromptSchedule": HeliosPromptSchedule,
    "HeliosLatentRobustness": HeliosLatentRobustness,
    "HeliosLoopStart": HeliosLoopStart,
    "HeliosLoopEnd": HeliosLoopEnd,
    "HeliosULLoader": HeliosULLoader,
    "HeliosULEncode": HeliosULEncode,
    "ULDecoder": ULDecoder,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HeliosULLoader": "Helios UL Loader",
    "HeliosULEncode": "Helios UL Encode",
    "ULDecoder": "Helios UL Decoder",
    "HeliosLoader": "Helios Loader",
    "HeliosLora": "Helios LoRA",
    "HeliosControl": "Helios Control",
    "HeliosTrainLora": "Helios Train LoRA",
    "T5Encode": "Helios Prompt (T5 Encode)",
    "HistoryMemory": "Helios History Memory",
    "HeliosNoise": "Helios Noise",
    "PyramidDownsample": "Helios Pyramid Downsample",
    "HeliosLatentPlot": "Helios Latent Plot",
    "DMDPyramidSample": "Helios DMD Pyramid Sample",
    "AntiDrift": "Helios Anti-Drift",
    "ChunkConcat": "Helios Chunk Concat",
    "HeliosSaveHistory": "Helios Save History",
    "HeliosLoadHistory": "Helios Load History",
    "HeliosPromptSchedule": "Helios Prompt Schedule",
    "HeliosLatentRobustness": "Helios Latent Robustness",
    "HeliosLoopStart": "Helios Loop Start",
    "HeliosLoopEnd": "Helios Loop End",
}
WEB_DIRECTORY = "./web"
routes.register()
talk.register()
