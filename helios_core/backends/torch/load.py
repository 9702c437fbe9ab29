"""Checkpoints into torch modules, and what the pipeline needs of torch besides.

Modules are built on meta, weights assigned, strict by name and shape.
"""

from __future__ import annotations

import gc

import torch
from torch import nn

from ...checkpoint import KINDS, Source, check_network, compute_format, is_kept, split_kind, tell, tell_narrowed
from ...checkpoint import find_kind as find_kind
from ...checkpoint import split_kind as check_kind  # noqa: F401
from ...config import ModelConfig, TransformerConfig, VAEConfig
from ...devices import decoding, host_free
from . import attention as attention_ways
from . import channels_last, compiled
from . import products as product_ways
from .files import STORED, Files
from .files import as_float32 as as_float32
from .files import check_finite as check_finite
from .files import quantised_bytes as quantised_bytes
from .images import encode as encode
from .images import fit as fit
from .offload import stream_blocks
from .text import load_text_encoder as load_text_encoder
from .transfer import Arrival, send
from .transformer import HeliosTransformer
from .vae import WanVAE
from .weights import load_transformer_weights

NETWORKS = {TransformerConfig: HeliosTransformer, VAEConfig: WanVAE}
CPU = torch.device("cpu")
RAN_OUT = ("unable to find an engine", "MPS backend out of memory")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

inference = torch.inference_mode


def array(values, like: torch.Tensor | None = None) -> torch.Tensor:
    """numpy -> float32 tensor on the CPU, or where `like` is."""
    return torch.as_tensor(values, dtype=torch.float32, device=None if like is None else like.device)


def to_cpu(x: torch.Tensor) -> torch.Tensor:
    """float32 on the CPU."""
    return x.float().cpu()


def finish(*arrays: torch.Tensor) -> None:
    """Torch computes at once; a lazy backend would do so here, once per step."""


def all_finite(x: torch.Tensor) -> Arrival:
    """A truth value on its way to the host."""
    return Arrival(torch.isfinite(x).all())


def to_device(vae: WanVAE, x) -> torch.Tensor:
    """A tensor or array as the VAE takes it, on its device."""
    return send(torch.as_tensor(x).to(vae.dtype), vae.device)


@torch.inference_mode()
def decode_blocks(vae: WanVAE, z: torch.Tensor):
    """Blocks of frames [b c t h w] in [-1, 1] of raw latents; in tiles, and then all at once, as `vae.tiling` says, and
    where memory runs out."""
    z = to_device(vae, z)

    def decode(tile: int | None):
        yield from vae.stream(z) if tile is None else [vae.decode_tiled(z, tile)]

    yield from decoding.decode_or_tile(
        decode,
        find_tile(vae, z.shape),
        lambda tile: smaller_tile(vae, z.shape, tile),
        lambda error: ran_out(vae, error),
    )


def find_tile(vae: WanVAE, shape: torch.Size) -> int | None:
    """Latents per side of the tiles to decode in, or None; auto: tiles where the whole frame does not fit."""
    free = free_memory(vae.device)
    return decoding.find_tile(vae.config, vae.tiling, tuple(shape), vae.dtype.itemsize, kind(vae.device), free)


def smaller_tile(vae: WanVAE, shape: torch.Size, tile: int | None) -> int | None:
    """The tile to try where memory ran out with `tile`, or with the whole frame."""
    empty_cache()
    free = free_memory(vae.device)
    return decoding.smaller_tile(vae.config, tuple(shape), vae.dtype.itemsize, kind(vae.device), free, tile)


def ran_out(vae: WanVAE, error: RuntimeError) -> bool:
    """Whether memory ran out, and tiles may help. A convolution says so in words of its own: of cuDNN's ways to compute
    it torch tries the next where one's workspace cannot be had, and then there was none."""
    said = isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in RAN_OUT)
    return said and vae.tiling != "off"


def find_device() -> torch.device:
    """CUDA, then Apple's GPU, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def kind(device) -> str:
    """cpu, cuda, mps ..."""
    return torch.device(device).type


def free_memory(device) -> int | None:
    """Bytes that can still be had on a device; None where nobody says."""
    if kind(device) == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if kind(device) == "mps":
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return min(left, host_free() or left)  # its memory is the host's
    return host_free() if kind(device) == "cpu" else None


def fast_bf16(device) -> bool:
    """Whether it multiplies bfloat16 at speed: CUDA from compute capability 8 on, Apple's GPUs.

    A CPU counts as one that does not. Some do (3.7 times float32, measured with oneDNN on AVX512), but memory is seldom
    short there, and a file gives the same video on any of them.
    """
    if kind(device) == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return kind(device) == "mps" and torch.backends.mps.is_macos_or_newer(14, 0)


def empty_cache() -> None:
    """Memory of components that nobody refers to any more goes back to the device."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        if empty := getattr(
            getattr(torch, "accelerator", None), "empty_host_cache", None
        ):  # pinned memory, newer torch
            empty()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def check_ways(
    source: Source, config: ModelConfig, device, *, dtype: str, attention: str = "auto", products: str = "auto",
    compile: str = "auto",
) -> None:  # fmt: skip
    """ValueError for an attention or for products that are not there, or not for what a transformer computes in; it
    lists what there is. dtype: one of WEIGHT_DTYPES."""
    form, head = find_kind(source, dtype), config.transformer.attention_head_dim
    computes_in = compute_format(source, "auto" if dtype == form else dtype, fast_bf16=fast_bf16(device))
    attention_ways.find(attention, device, STORED[computes_in], head)
    product_ways.chosen(products, device, _codes(form))
    compiled.wanted(compile, device)


def _codes(kind: str | None) -> str | None:
    """The form of the codes of what is quantised, but for GGUF's blocks, which are always widened."""
    return split_kind(kind)[0] if kind in KINDS else None


def load_transformer(
    source: Source, config: ModelConfig, *, dtype: str, device, streamed: bool = False, attention: str = "auto",
    products: str = "auto", compile: str = "auto",
) -> HeliosTransformer:  # fmt: skip
    """The transformer, fused for inference. dtype: one of WEIGHT_DTYPES; for auto see `compute_format`.

    streamed: its blocks stay in host memory and stream to the device. attention, products, compile: of devices.ways.
    ValueError for fp8 on Apple's GPU, and as `check_ways`.
    """
    form = find_kind(source, dtype)
    kept = {s.kept for n, s in source.tensors.items() if is_kept(n, s, form, dtype)}
    if "fp8_e4m3fn" in {form, *kept} and kind(device) == "mps":
        raise ValueError(f"{source.path}: Apple's GPU has no fp8; choose weight_dtype int8, or bf16 for a file in fp8")
    chosen = choose_dtype(source, "auto" if dtype == form else dtype, device)
    model, _ = _build(lambda: HeliosTransformer(config.transformer), source)
    place = CPU if streamed else device
    model = load_transformer_weights(model, source, dtype=chosen, kind=form, device=place, asked=dtype)
    about = device, chosen, config.transformer.attention_head_dim
    model.attend_by(way := attention_ways.find(attention, *about))
    attention_ways.try_out(way, *about)
    if product_ways.chosen(products, device, _codes(form)):
        product_ways.use(model, device)
    if compiled.wanted(compile, device):
        compiled.use(model)
    if channels_last.wanted(device, chosen):
        channels_last.lay_out(model)  # its patch embeddings
    return stream_blocks(model, device) if streamed else model


def load_vae(source: Source, config: ModelConfig, *, dtype: str = "fp32", tiling: str = "auto", device) -> WanVAE:
    """The VAE; float32 unless asked otherwise, as the reference runs it. tiling: auto, on or off; see `stream`."""
    chosen = DTYPES[dtype]
    vae = build_and_load(lambda: WanVAE(config.vae), source, lambda _: chosen, device)
    vae.tiling = tiling
    copied = chosen == torch.bfloat16 and kind(device) == "cpu"  # for each product, by oneDNN, where they lie plainly
    return channels_last.lay_out(vae) if copied or channels_last.wanted(device, chosen) else vae


def watch(network, check) -> None:
    """Has `check`, which may raise, called before each layer of a VAE or text encoder computes."""
    for layer in getattr(network, "model", network).modules():
        if not any(True for _ in layer.children()):
            layer.register_forward_pre_hook(lambda *_: check())


def shapes(config: TransformerConfig | VAEConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of the network."""
    with torch.device("meta"):
        return _shapes(NETWORKS[type(config)](config))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.state_dict().items()}


def choose_dtype(source: Source, dtype: str, device) -> torch.dtype:
    """What a transformer computes in for a dtype of auto, bf16, fp16 or fp32; says so where auto is not as stored."""
    chosen = compute_format(source, dtype, fast_bf16=fast_bf16(device))
    if dtype == "auto" and (source.tensors["proj_out.weight"].dtype, chosen) == ("F32", "BF16"):
        tell_narrowed(source.path)
    return STORED[chosen]


def _build(build, source: Source) -> tuple[nn.Module, list[str]]:
    """The model on meta, and the names of its tensors; the files' must have the same shapes."""
    with torch.device("meta"):
        model = build()
    wanted = _shapes(model)
    check_network(source, wanted)
    return model, list(wanted)


def build_and_load(build, source: Source, cast, device) -> nn.Module:
    """cast: name -> dtype. Tensor by tensor, in the order of the files."""
    model, names = _build(build, source)
    files, state = Files(source), {}
    for name in sorted(names, key=lambda n: source.tensors[n][:2]):
        state[name] = files.read(source.tensors[name], cast(name), device)
        tell(source.tensors[name].whole)
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).train(False)
