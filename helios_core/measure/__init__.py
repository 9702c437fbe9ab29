"""Figures and pictures of latents, decoders and joints, for nodes, studies and trainings."""

from . import plots, probe, probe_report
from .codec import codec_of, open_codec
from .joints import frame_statistics, joints
from .latent_plot import picture
from .plots import filmstrip, line_plot, sheet
from .probe import Codec

__all__ = [
    "Codec",
    "codec_of",
    "filmstrip",
    "frame_statistics",
    "joints",
    "line_plot",
    "open_codec",
    "picture",
    "plots",
    "probe",
    "probe_report",
    "sheet",
]
