"""Control adapters with random weights, and control videos."""

from __future__ import annotations

import numpy as np
import torch
from helios_video.helios_core.control import EMBEDDING, adapter_facts
from safetensors.torch import save_file


def adapter(folder, config, *, scale=0.2, lora=False, policy="content", name="control.safetensors"):
    """A file for a transformer of that configuration; scale 0: untrained. lora: with a pair for one layer."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(config.dim, config.in_channels, *config.patch_size, generator=draw) * scale
    held = {f"{EMBEDDING}.weight": weight, f"{EMBEDDING}.bias": torch.randn(config.dim, generator=draw) * scale}
    if lora:
        held["transformer.blocks.0.attn1.to_q.lora_A.weight"] = torch.randn(2, config.dim, generator=draw)
        held["transformer.blocks.0.attn1.to_q.lora_B.weight"] = torch.randn(config.dim, 2, generator=draw) * scale
    file = folder / name
    save_file(
        {key: value.to(torch.bfloat16) for key, value in held.items()}, file, adapter_facts(config, policy, "mask")
    )
    return file


def latents(helios, chunks=1, *, size=64, batch=1, seed=1):
    """Random control latents [b c 9k h w]."""
    scale, channels = helios.config.vae.scale_factor_spatial, helios.config.vae.z_dim
    shape = (batch, channels, 9 * chunks, size // scale, size // scale)
    return helios.backend.array(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def sampled(helios, *, seed=0, batch=1, history=None, prompt="a red circle moving left", **options):
    """One chunk as numpy."""
    history = history or helios.history(64, 64, batch=batch)
    *_, last = helios.sample(history, helios.text(prompt), seed=seed, steps=(1, 1, 1), **options)
    return np.array(helios.backend.to_cpu(last.latent))
