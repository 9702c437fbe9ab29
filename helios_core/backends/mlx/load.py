"""Checkpoints into MLX modules, and what the pipeline needs of MLX besides.

Modules are built of random numbers that nobody ever evaluates, weights assigned, strict by name and shape.
What leaves this module is evaluated, so that it may be used in another thread: MLX's lazy arrays may not.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import ContextDecorator, nullcontext

import mlx.core as mx
import numpy as np
from einops import rearrange

from ...checkpoint import KINDS, Source, compute_format, tell_narrowed
from ...config import ModelConfig, TransformerConfig, VAEConfig
from ...devices import decoding, host_free
from .arrays import evaluate, to_array
from .files import FLOATS
from .files import as_float32 as as_float32
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

LOG = logging.getLogger(__name__)
SOUND = (0, 32)  # the version from which quantised products of many rows are right (mlx pull request 3631)
NETWORKS = {TransformerConfig: HeliosTransformer, VAEConfig: WanVAE}
CPU = mx.Device(mx.cpu)
RAN_OUT = ("Unable to allocate", "Insufficient Memory")
DTYPES = {"bf16": mx.bfloat16, "fp16": mx.float16, "fp32": mx.float32}


class inference(nullcontext, ContextDecorator):
    """Nothing to switch: MLX records gradients only where they are asked for."""


def array(values, like: mx.array | None = None) -> mx.array:
    """numpy, torch or MLX -> float32. like: on its device, as the torch twin has it; here memory is one."""
    return to_array(values)


def to_cpu(x: mx.array) -> mx.array:
    """float32 and evaluated."""
    x = x.astype(mx.float32)
    evaluate(x)
    return x


def finish(*arrays: mx.array) -> None:
    """Computes what was only described so far: one step's graph."""
    evaluate(*arrays)


def all_finite(x: mx.array) -> mx.array:
    """A flag that is not evaluated, so that asking does not wait."""
    return mx.isfinite(x).all()


def to_device(vae: WanVAE, x) -> mx.array:
    """numpy, torch or MLX -> as the VAE takes it."""
    return to_array(x).astype(vae.dtype)


def decode_blocks(vae: WanVAE, z):
    """Blocks of frames [b c t h w] in [-1, 1] of raw latents; in tiles, and then all at once, as `vae.tiling` says, and
    where memory runs out."""
    z = to_device(vae, z)

    def decode(tile: int | None):
        for block in vae.stream(z) if tile is None else [vae.decode_tiled(z, tile)]:
            evaluate(block)
            yield block

    yield from decoding.decode_or_tile(
        decode,
        find_tile(vae, z.shape),
        lambda tile: smaller_tile(vae, z.shape, tile),
        lambda error: ran_out(vae, error),
    )


def find_tile(vae: WanVAE, shape: tuple[int, ...]) -> int | None:
    """Latents per side of the tiles to decode in, or None; auto: tiles where the whole frame does not fit."""
    device = find_device()
    return decoding.find_tile(vae.config, vae.tiling, tuple(shape), vae.dtype.size, kind(device), free_memory(device))


def smaller_tile(vae: WanVAE, shape: tuple[int, ...], tile: int | None) -> int | None:
    """The tile to try where memory ran out with `tile`, or with the whole frame."""
    empty_cache()
    device = find_device()
    return decoding.smaller_tile(vae.config, tuple(shape), vae.dtype.size, kind(device), free_memory(device), tile)


def ran_out(vae: WanVAE, error: RuntimeError) -> bool:
    """Whether memory ran out, and tiles may help."""
    return vae.tiling != "off" and any(words in str(error) for words in RAN_OUT)


def stream_pixels(blocks) -> Iterator[np.ndarray]:
    """`to_pixels` of block after block."""
    return map(to_pixels, blocks)


def to_pixels(frames: mx.array) -> np.ndarray:
    """Frames [b c t h w] in [-1, 1] -> uint8 [t h w c] of the first batch element. ValueError for NaN."""
    decoding.check_frames(mx.isfinite(frames[0].astype(mx.float32).sum()).item())
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


def fast_bf16(device) -> bool:
    """Whether it multiplies bfloat16 at speed: any GPU of MLX. A CPU counts as one that does not, as in torch."""
    return kind(device) != "cpu"


def place(model, device, *, streamed: bool = False) -> None:
    """Nothing to move: the device's memory is the host's."""


def empty_cache() -> None:
    """Memory of components that nobody refers to any more goes back to the system."""
    gc.collect()
    mx.clear_cache()


def watch(network, check) -> None:
    """MLX computes a whole chunk of work at once, when it is asked for: there is no layer to stop at."""


def check_ways(
    source: Source, config: ModelConfig, device, *, dtype: str, attention: str = "auto", products: str = "auto",
    compile: str = "auto",
) -> None:  # fmt: skip
    """ValueError for any way but MLX's own."""
    for name, chosen in (("attention", attention), ("products", products), ("compile", compile)):
        if chosen != "auto":
            raise ValueError(f"{name} {chosen}: MLX has one way, its own; leave it at auto, or choose backend torch")


def load_transformer(
    source: Source, config: ModelConfig, *, dtype: str, device, streamed: bool = False, attention: str = "auto",
    products: str = "auto", compile: str = "auto",
) -> HeliosTransformer:  # fmt: skip
    """The transformer, fused for inference. dtype: one of WEIGHT_DTYPES; for auto see `compute_format`.

    streamed: refused; with MLX the device's memory is the host's, so there is nowhere to stream from. ValueError for
    that.
    """
    check_ways(source, config, device, dtype=dtype, attention=attention, products=products, compile=compile)
    if streamed:
        raise ValueError("offload blocks: MLX has no other memory to stream from; choose none or sequential")
    if find_kind(source, dtype) is not None:
        tell_old()
    chosen = choose_dtype(source, "auto" if dtype in KINDS else dtype, device)
    model = load_transformer_weights(HeliosTransformer(config.transformer), source, dtype=chosen, weight_dtype=dtype)
    if kind(device) == "metal":
        WIRED.hold(model)
    return prepare(model, device)


def tell_old() -> None:
    """Says where MLX may give noise instead of a picture: quantised weights, and a version below SOUND."""
    if tuple(map(int, mx.__version__.split(".")[:2])) < SOUND:
        LOG.warning(
            "MLX %s: on GPUs from M5 on, quantised products of more than 32,768 tokens come out wrong before 0.32; run "
            "pip install -U mlx",
            mx.__version__,
        )


def prepare(model: HeliosTransformer, device) -> HeliosTransformer:
    """Made ready for sampling; compiled on a GPU only: for a CPU, MLX needs a C++ compiler and half a minute."""
    return model.fuse() if kind(device) == "cpu" else model.fuse().jit()


def load_vae(source: Source, config: ModelConfig, *, dtype: str = "fp32", tiling: str = "auto", device=None) -> WanVAE:
    """The VAE; float32 unless asked otherwise, as the reference runs it. tiling: auto, on or off; see `stream`."""
    chosen = DTYPES[dtype]
    vae = load_weights(WanVAE(config.vae), source, lambda _: chosen)
    vae.tiling = tiling
    return vae


def shapes(config: TransformerConfig | VAEConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of the network, in the files' layout."""
    return published_shapes(NETWORKS[type(config)](config))


def choose_dtype(source: Source, dtype: str, device) -> mx.Dtype:
    """What a transformer computes in for a dtype of auto, bf16, fp16 or fp32; says so where auto is not as stored."""
    chosen = compute_format(source, dtype, fast_bf16=fast_bf16(device))
    if dtype == "auto" and (source.tensors["proj_out.weight"].dtype, chosen) == ("F32", "BF16"):
        tell_narrowed(source.path)
    return FLOATS[chosen]
