"""A VAE file of Wan's form, an eighth as wide, that newer versions of ComfyUI's own loader read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import names
from helios_video.helios_core.config import VAEConfig
from safetensors.torch import save_file

from .comfyui import COMFYUI


def narrow_vae(folder: Path, seed: int) -> str:
    """The name of a new file in the folder, of random weights. Skips where ComfyUI reads none of that width."""
    if 'sd["decoder.head.0.gamma"]' not in Path(COMFYUI, "comfy", "sd.py").read_text(encoding="utf-8"):
        pytest.skip("this ComfyUI builds Wan's VAE in its published width alone")
    torch.manual_seed(seed)
    state = WanVAE(VAEConfig(base_dim=12)).state_dict()
    own = names.wan_names(state)
    folder.mkdir(exist_ok=True)
    save_file({own[name]: value.contiguous() for name, value in state.items()}, folder / f"{seed}.safetensors")
    return f"{seed}.safetensors"
