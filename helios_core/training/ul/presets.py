"""Sizes of Unified Latents models by name; a JSON file of ULConfig's fields is another way to give them."""

from __future__ import annotations

from pathlib import Path

from ...config import read_json
from ...ul import ULConfig

# Of the networks that the experiments and the tests train: seconds to minutes on a CPU.
TINY = {
    "encoder_channels": (32, 48), "encoder_blocks": (1, 2), "decoder_channels": (32, 64), "decoder_blocks": (2, 3),
    "prior_channels": (64,), "prior_blocks": (3,), "base_channels": (64, 96), "base_blocks": (2, 2),
    "head_dim": 16, "dropout": 0.0, "logsnr_x": (-6.0, 8.0),
}  # fmt: skip
SMALL = {
    "encoder_channels": (64, 128, 256), "encoder_blocks": (2, 2, 3), "decoder_channels": (64, 128, 384),
    "decoder_blocks": (2, 2, 6), "prior_channels": (384,), "prior_blocks": (6,), "base_channels": (384, 512),
    "base_blocks": (4, 8),
}  # fmt: skip
PRESETS = {
    "tiny": ULConfig(latent_channels=4, stride=(1, 4), **TINY),
    "tiny-video": ULConfig(latent_channels=8, stride=(4, 4), causal=True, **TINY),
    "small": ULConfig(latent_channels=16, stride=(1, 8), **SMALL),
    "small-video": ULConfig(latent_channels=16, stride=(4, 8), causal=True, window=8, **SMALL),
    "helios-tiny": ULConfig(
        latent_channels=16, stride=(4, 8), causal=True, window=4, encoder_channels=(16, 32, 64),
        encoder_blocks=(1, 1, 1), decoder_channels=(20, 40, 96), decoder_blocks=(2, 2, 4), prior_channels=(96,),
        base_channels=(96, 96), head_dim=16, dropout=0.0, logsnr_x=(-6.0, 8.0),
    ),
    "paper": ULConfig(),
    "paper-video": ULConfig(
        latent_channels=16, stride=(4, 8), encoder_channels=(128, 256, 512), encoder_blocks=(2, 2, 3),
        decoder_channels=(128, 256, 1024), decoder_blocks=(2, 2, 8),
    ),
}  # fmt: skip


def find(name: str) -> ULConfig:
    """A preset, or the config of a JSON file. ValueError names what there is."""
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".json"):
        raise ValueError(f"--model {name}: wanted {', '.join(PRESETS)}, or a .json file of the sizes")
    return ULConfig.from_dict(read_json(Path(name)))
