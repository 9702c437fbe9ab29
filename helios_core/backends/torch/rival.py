"""diffusers' transformer and VAE, measured as `helios bench speed` measures ours: the same sizes, random weights."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib import metadata

import torch

from ...config import ModelConfig
from ...history import History
from . import speed
from .load import DTYPES

MISSING = (ImportError, torch.cuda.OutOfMemoryError)  # diffusers of a version that has the model, or room for it
PARTS = ("short", "mid", "long")
TIMES = 2


def version() -> str:
    """diffusers'."""
    return metadata.version("diffusers")


@torch.no_grad()
def measure(config: ModelConfig, width: int, height: int, name: str, device) -> tuple[list[float], float, int | None]:
    """(seconds of a step of each stage, of decoding a chunk, peak bytes). name: of the number format; decoding in what
    ours takes by itself. ImportError without diffusers, or with one that lacks the model."""
    from diffusers import AutoencoderKLWan, HeliosTransformer3DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()
    dtype, frames = DTYPES[name], config.defaults.chunk_latent_frames
    own = {key: value for key, value in asdict(config.transformer).items() if key not in ("history_scale_mode",)}
    h, w = height // 8, width // 8
    window = torch.randn(1, 16, 19, h, w)
    parts = History(window, window[:, :, :1]).parts(frames)
    index = {f"indices_latents_history_{n}": torch.tensor(getattr(parts, f"{n}_index"))[None].to(device) for n in PARTS}
    index["indices_hidden_states"] = torch.tensor(parts.current_index)[None].to(device)
    past = {f"latents_history_{n}": getattr(parts, n).to(device, dtype) for n in PARTS}
    text, t = torch.randn(1, 512, config.transformer.text_dim, device=device, dtype=dtype), torch.tensor([500])

    def steps() -> list[float]:
        model, found = _made(lambda: HeliosTransformer3DModel(**own), device, dtype), []
        for _, _, size in speed.stage_sizes(config, width, height):
            x = torch.randn(1, 16, frames, *size, device=device, dtype=dtype)
            found.append(_timed(device, lambda x=x: model(x, t.to(device), text, **index, **past, return_dict=False)))
        return found

    speed.reset_peak(device)
    stages, peak = steps(), speed.peak(device)
    sizes = dict(base_dim=config.vae.base_dim, z_dim=config.vae.z_dim, num_res_blocks=config.vae.num_res_blocks)
    sizes["dim_mult"] = list(config.vae.dim_mult)
    vae = _made(lambda: AutoencoderKLWan(**sizes), device, torch.float32)
    z = torch.randn(1, 16, frames, h, w, device=device)
    return stages, _timed(device, lambda: vae.decode(z, return_dict=False)), peak


def _made(build, device, dtype: torch.dtype):
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device).train(False).requires_grad_(False)
    speed.randomise(model)
    return model


def _timed(device, run) -> float:
    times = TIMES if torch.device(device).type != "cpu" else 1
    if times > 1:  # the first has a GPU load its kernels
        run()
    speed.wait(device)
    then = time.perf_counter()
    for _ in range(times):
        run()
    speed.wait(device)
    return (time.perf_counter() - then) / times
