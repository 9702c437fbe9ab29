"""Checkpoints into torch modules, and what the pipeline needs of torch besides.

Modules are built on meta, weights assigned, strict by name and shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors import safe_open
from torch import nn

from ... import weights
from ...config import ModelConfig
from .text import load_text_encoder as load_text_encoder
from .transformer import FLOAT32, HeliosTransformer
from .vae import WanVAE

# Left over from training in some published files; never used in inference.
IGNORED = ("gan_heads.", "gan_final_head.", "_loras.", "norm_added_q")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


inference = torch.inference_mode


def array(values, like: torch.Tensor | None = None) -> torch.Tensor:
    """numpy -> float32 tensor on the CPU, or where `like` is."""
    return torch.as_tensor(values, dtype=torch.float32, device=None if like is None else like.device)


def to_cpu(x: torch.Tensor) -> torch.Tensor:
    return x.float().cpu()


def all_finite(x: torch.Tensor) -> torch.Tensor:
    """A flag that stays on the device, so that asking does not wait."""
    return torch.isfinite(x).all()


@torch.inference_mode()
def stream(vae: WanVAE, z: torch.Tensor):
    """Blocks of frames [b c t h w] in [-1, 1] of raw latents."""
    yield from vae.stream(z.to(vae.dtype).to(vae.device))


def to_pixels(frames: torch.Tensor) -> np.ndarray:
    """Frames [b c t h w] in [-1, 1] -> uint8 [t h w c] of the first batch element."""
    pixels = ((frames[0].float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(pixels, "c t h w -> t h w c").cpu().numpy()


def find_device() -> torch.device:
    """CUDA, then Apple's GPU, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_transformer(folder: Path, config: ModelConfig, *, dtype: str, device) -> HeliosTransformer:
    """The transformer of a published folder, fused for inference. dtype: auto (as stored), bf16, fp16 or fp32."""
    found = _rename(weights.read_headers(folder))
    chosen = choose_dtype(found, "proj_out.weight", dtype, device)

    def cast(name: str) -> torch.dtype:
        return torch.float32 if any(part in name for part in FLOAT32) else chosen

    model = _fill(lambda: HeliosTransformer(config.transformer), found, folder, cast, device)
    return model.fuse()


def load_vae(folder: Path, config: ModelConfig, *, dtype: str = "fp32", device) -> WanVAE:
    """The VAE of a published folder; float32 unless asked otherwise, as the reference runs it."""
    found = weights.read_headers(folder)
    chosen = choose_dtype(found, "decoder.conv_in.weight", dtype, device)
    return _fill(lambda: WanVAE(config.vae), found, folder, lambda _: chosen, device)


def check(folder: Path, config: ModelConfig) -> None:
    """Compares the transformer's and the VAE's headers with the models that the config describes; reads no weights."""
    for part, build in (
        ("transformer", lambda: HeliosTransformer(config.transformer)),
        ("vae", lambda: WanVAE(config.vae)),
    ):
        _build(build, _rename(weights.read_headers(folder / part)), folder / part)


def choose_dtype(found: dict, key: str, dtype: str, device) -> torch.dtype:
    """The dtype asked for; "auto" is as stored."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ValueError(f"weight_dtype {dtype!r}: wanted auto, {', '.join(DTYPES)}")
        return DTYPES[dtype]
    stored = found[key].dtype if key in found else "F32"
    if stored not in STORED:
        raise ValueError(f"weights stored as {stored} are not read yet; take a bf16, fp16 or fp32 checkpoint")
    return STORED[stored]


def _rename(found: dict) -> dict:
    """Old files hold the output norm's table at the top level."""
    return {"norm_out.scale_shift_table" if k == "scale_shift_table" else k: v for k, v in found.items()}


def _build(build, found: dict, folder: Path) -> tuple[nn.Module, dict]:
    """The model on meta, and the shapes of its tensors, which the files' must be."""
    with torch.device("meta"):
        model = build()
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    weights.check_keys(str(folder), wanted, found, ignored=IGNORED)
    return model, wanted


def _fill(build, found: dict, folder: Path, cast, device) -> nn.Module:
    model, wanted = _build(build, found, folder)
    state = {}
    for file in sorted({found[name].file for name in wanted}):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                name = next(iter(_rename({key: None})))
                if name in wanted:
                    state[name] = tensors.get_tensor(key).to(device=device, dtype=cast(name))
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).eval()
