"""Checkpoints into MLX modules, and what the pipeline needs of MLX besides.

Modules are built of random numbers that nobody ever evaluates, weights assigned, strict by name and shape.
What leaves this module is evaluated, so that it may be used in another thread: MLX's lazy arrays may not.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import ContextDecorator, nullcontext

import mlx.core as mx
import numpy as np
from einops import rearrange

from ...checkpoint import KINDS, Source
from ...config import ModelConfig, TransformerConfig, VAEConfig
from ...devices import host_free, needs
from .arrays import to_array
from .files import FLOATS
from .files import check_finite as check_finite
from .images import encode as encode
from .images import fit as fit
from .quant import check_kind as check_kind
from .quant import find_kind as find_kind
from .quant import quantised_bytes as quantised_bytes
from .text import load_text_encoder as load_text_encoder
from .transformer import HeliosTransformer
from .vae import WanVAE
from .weights import load_transformer_weights, load_weights, published_shapes

NETWORKS = {TransformerConfig: HeliosTransformer, VAEConfig: WanVAE}
CPU = mx.Device(mx.cpu)
DTYPES = {"bf16": mx.bfloat16, "fp16": mx.float16, "fp32": mx.float32}


class inference(nullcontext, ContextDecorator):
    """Nothing to switch: MLX records gradients only where they are asked for."""


def array(values, like: mx.array | None = None) -> mx.array:
    """numpy, torch or MLX -> float32. like: on its device, as the torch twin has it; here memory is one."""
    return to_array(values)


def to_cpu(x: mx.array) -> mx.array:
    """float32 and evaluated."""
    x = x.astype(mx.float32)
    mx.eval(x)
    return x


def finish(*arrays: mx.array) -> None:
    """Computes what was only described so far: one step's graph."""
    mx.eval(*arrays)


def all_finite(x: mx.array) -> mx.array:
    """A flag that is not evaluated, so that asking does not wait."""
    return mx.isfinite(x).all()


def to_device(vae: WanVAE, x) -> mx.array:
    """numpy, torch or MLX -> as the VAE takes it."""
    return to_array(x).astype(vae.dtype)


def decode_blocks(vae: WanVAE, z):
    """Blocks of frames [b c t h w] in [-1, 1] of raw latents; in tiles, and then all at once, as `vae.tiling` says."""
    z = to_device(vae, z)
    tile = find_tile(vae, z.shape)
    for block in vae.stream(z) if tile is None else [vae.decode_tiled(z, tile)]:
        mx.eval(block)
        yield block


def find_tile(vae: WanVAE, shape: tuple[int, ...]) -> int | None:
    """Latents per side of the tiles to decode in, or None; auto: tiles where the whole frame does not fit."""
    device = find_device()
    free = free_memory(device)
    return needs.find_tile(vae.config, vae.tiling, shape, vae.dtype.size, kind(device), free)


def to_pixels(frames: mx.array) -> np.ndarray:
    """Frames [b c t h w] in [-1, 1] -> uint8 [t h w c] of the first batch element."""
    pixels = mx.clip(mx.round((frames[0].astype(mx.float32) + 1) * 127.5), 0, 255).astype(mx.uint8)
    return np.array(rearrange(pixels, "c t h w -> t h w c"))


def find_device() -> mx.Device:
    """MLX's default: Apple's GPU where there is one, else the CPU."""
    return mx.default_device()


def kind(device) -> str:
    """cpu, metal (whose memory is the host's) or cuda."""
    if device == CPU:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def free_memory(device) -> int | None:
    """Bytes that can still be had on a device; None where nobody says."""
    if kind(device) == "metal":
        return _metal_limit() - mx.get_active_memory()
    return host_free() if kind(device) == "cpu" else None


def _metal_limit() -> int:
    info = mx.device_info if hasattr(mx, "device_info") else mx.metal.device_info  # its place in older versions
    return info()["max_recommended_working_set_size"]


class Wired:
    """Keeps weights from being paged out between steps: Metal's limit of wired memory while there are models. When the
    last of them is gone the limit is what it was before the first."""

    def __init__(self):
        self.models, self.before = 0, 0

    def hold(self, model) -> None:
        """Raises the limit until the model is let go of."""
        before = mx.set_wired_limit(_metal_limit())
        self.before, self.models = self.before if self.models else before, self.models + 1
        weakref.finalize(model, self._let_go).atexit = False

    def _let_go(self) -> None:
        self.models -= 1
        if not self.models:
            mx.set_wired_limit(self.before)


WIRED = Wired()


def empty_cache() -> None:
    """Memory of components that nobody refers to any more goes back to the system."""
    gc.collect()
    mx.clear_cache()


def watch(network, check) -> None:
    """MLX computes a whole chunk of work at once, when it is asked for: there is no layer to stop at."""


def load_transformer(
    source: Source, config: ModelConfig, *, dtype: str, device, streamed: bool = False
) -> HeliosTransformer:
    """The transformer, fused for inference. dtype: auto (as stored, fp8 as bf16), bf16, fp16, fp32, int8, int4, ...

    streamed: refused; with MLX the device's memory is the host's, so there is nowhere to stream from.
    """
    if streamed:
        raise ValueError("offload blocks: MLX has no other memory to stream from; choose none or sequential")
    chosen = choose_dtype(source.tensors, "proj_out.weight", "auto" if dtype in KINDS else dtype)
    model = load_transformer_weights(HeliosTransformer(config.transformer), source, dtype=chosen, weight_dtype=dtype)
    if kind(device) == "metal":
        WIRED.hold(model)
    return prepare(model, device)


def prepare(model: HeliosTransformer, device) -> HeliosTransformer:
    """Made ready for sampling; compiled on a GPU only: for a CPU, MLX needs a C++ compiler and half a minute."""
    return model.fuse() if kind(device) == "cpu" else model.fuse().compile()


def load_vae(source: Source, config: ModelConfig, *, dtype: str = "fp32", tiling: str = "auto", device=None) -> WanVAE:
    """The VAE; float32 unless asked otherwise, as the reference runs it. tiling: auto, on or off; see `stream`."""
    chosen = choose_dtype(source.tensors, "decoder.conv_in.weight", dtype)
    vae = load_weights(WanVAE(config.vae), source, lambda _: chosen)
    vae.tiling = tiling
    return vae


def shapes(config: TransformerConfig | VAEConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of the network, in the files' layout."""
    return published_shapes(NETWORKS[type(config)](config))


def choose_dtype(found: dict, key: str, dtype: str) -> mx.Dtype:
    """The dtype asked for; "auto" is as stored."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ValueError(f"weight_dtype {dtype!r}: wanted auto, {', '.join(DTYPES)}")
        return DTYPES[dtype]
    # Scaled weights are widened to what they were made from.
    return FLOATS.get(found[key].dtype if key in found else "F32", mx.bfloat16)
