"""Figures and pictures of latents, decoders and joints, for nodes, studies and trainings."""

from . import figures, plots, probe, probe_report
from .codec import codec_of, open_codec
from .joints import frame_statistics, joints
from .latent_plot import picture
from .probe import Codec

__all__ = [
    "Codec",
    "codec_of",
    "figures",
    "frame_statistics",
    "joints",
    "open_codec",
    "picture",
    "plots",
    "probe",
    "probe_report",
]
