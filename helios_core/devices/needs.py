"""What a run needs of device and host memory, from file headers and configs alone; so before anything loads.

Weights are counted exactly. Working memory is a bound fitted to measurements (fp32 and bf16, two sizes each): per
token and channel 12 bytes of float32 and 6 numbers of the compute type; per latent pixel of a decoded frame 1 MiB in
float32 at the published width, most of it the past frames that the causal convolutions remember.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from ..checkpoint import BYTES, DTYPES, Source, find_kind, held_bytes, is_float32, is_quantised
from ..config import ModelConfig, VAEConfig

LOG = logging.getLogger(__name__)
GIB = 2**30
OFFLOAD = ("auto", "none", "blocks", "sequential")
SHARED = ("cpu", "metal")  # kinds of device whose memory is the host's
VAE_DTYPES = ("fp32", "bf16", "fp16")
TILING = ("auto", "off", "on")
BASE = GIB  # Python, torch and a device's context
VAE_WIDTH, VAE_PER_PIXEL = 96, 2**20  # bytes per latent pixel, float32
# Bytes of one activation of a block of frames, of which four are there at once. The VAE's own limits.
VAE_BLOCK, VAE_BLOCK_GPU = {"cpu": 52 * 2**20}, 400 * 2**20
FRAMES = 33  # of a chunk
TILES = (32, 24, 16)  # latents; smaller ones see too little around them
TOKENS = 512


@dataclass(frozen=True)
class Estimate:
    """Bytes. parts: the weights of transformer, vae and text_encoder; work: what each computes in.

    block: one transformer block's matrices; rest: the transformer without them, on the device in any mode. largest: of
    any tensor as it is read. tiled: what the VAE decodes in where memory is short. cpu: the device is the host.
    """

    parts: dict[str, int]
    work: dict[str, int]
    block: int
    rest: int
    largest: int
    tiled: int
    cpu: bool

    def device(self, offload: str) -> int:
        """Bytes of device memory at the highest."""
        if offload == "none":
            needed = sum(self.parts.values()) + max(self.work.values())
        else:
            needed = max(self.part(name, offload) for name in ("transformer", "vae"))
        return needed + (0 if self.cpu else BASE // 2)

    def part(self, name: str, offload: str) -> int:
        """Bytes on the device while one component runs: it alone, or with the streamed transformer that stays."""
        if offload != "blocks":
            return self.parts[name] + self.work[name]
        streamed = self.rest + 2 * self.block
        return streamed + (self.work[name] if name == "transformer" else self.parts[name] + self.tiled)

    def host(self, offload: str) -> int:
        """Bytes of host memory at the highest, a file's mapped pages included.

        Where memory is short, the text encoder has its turn on the CPU.
        """
        if self.cpu:
            whole = sum(self.parts.values()) + max(self.work.values())
            return BASE + (whole if offload == "none" else max(self.part(name, "none") for name in self.parts))
        held = self.parts["text_encoder"] if offload == "sequential" else 0
        if offload == "blocks":
            held = max(self.parts["transformer"] + 2 * self.block, self.parts["text_encoder"])
        return BASE + max(held, 2 * self.largest)

    def choose(self, free: int | None) -> str:
        """The fastest offload that fits into `free` bytes of the device; unknown: none."""
        modes = ("none", "sequential") if self.cpu else ("none", "sequential", "blocks")
        return next((m for m in modes if free is None or self.device(m) <= free), modes[-1])

    def describe(self, offload: str, weight_dtype: str) -> str:
        """Two lines for people: the parts, then the needs."""
        parts = ", ".join(f"{name.replace('_', ' ')} {size(n)}" for name, n in self.parts.items())
        needs = f"host {size(self.host(offload))}" + ("" if self.cpu else f", device {size(self.device(offload))}")
        return f"weights: {parts} (weight dtype {weight_dtype})\nneeded with offload {offload}: {needs}"

    def shortage(self, offload: str, free: int | None, host: int | None) -> str | None:
        """What does not fit, with what to choose instead; None if all does, as far as is known."""
        needed = self.device(offload)
        if not self.cpu and free is not None and needed > free:
            what = f"needs {size(needed)} of device memory with offload {offload}, {size(free)} are free"
            return f"{what}; {ADVICE[offload]}"
        if host is not None and self.host(offload) > host:
            return f"needs {size(self.host(offload))} of host memory, {size(host)} are free; {HOST_ADVICE}"
        return None


SMALLER = "a weight dtype of fewer bits (fp8_e4m3fn, int8, int4), or a smaller size"
ADVICE = {
    "none": f"choose offload auto, sequential or blocks, or {SMALLER}",
    "sequential": f"choose offload blocks, or {SMALLER}",
    "blocks": f"choose {SMALLER}",
}
HOST_ADVICE = "close other programs, or choose a weight dtype of fewer bits (fp8_e4m3fn, int8, int4)"


def size(nbytes: int) -> str:
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= GIB / 10 else f"{nbytes / 2**20:.0f} MiB"


def estimate(
    sources: dict[str, Source],
    config: ModelConfig,
    *,
    width: int,
    height: int,
    device: str = "cpu",
    weight_dtype="auto",
    vae_dtype="fp32",
    vae_tiling="auto",
    backend="torch",
) -> Estimate:
    """The needs of videos of width x height pixels. device: its kind, such as cpu, cuda, mps."""
    tensors, text, vae = (sources[part].tensors for part in ("transformer", "text_encoder", "vae"))
    sizes, item = _tensor_bytes(sources["transformer"], weight_dtype, backend)
    blocks = Counter()
    for name in filter(is_quantised, sizes):
        blocks[name.split(".")[1]] += sizes[name]
    pixel = BYTES[DTYPES[vae_dtype]]
    frame = (height // config.vae.scale_factor_spatial, width // config.vae.scale_factor_spatial)
    decoding, tiled = _decoding(config.vae, frame, pixel, device, vae_tiling)
    parts = {
        "text_encoder": sum(prod(s.shape) * max(2, BYTES[s.dtype]) for s in text.values()),
        "transformer": sum(sizes.values()),
        "vae": sum(prod(s.shape) for s in vae.values()) * pixel,
    }
    work = {
        "text_encoder": parts["text_encoder"] // 40,
        "transformer": transformer_work(config, width, height, item),
        "vae": decoding,
    }
    return Estimate(
        parts,
        work,
        block=max(blocks.values()),
        rest=parts["transformer"] - blocks.total(),
        largest=max(prod(s.shape) * max(BYTES[s.dtype], item) for s in tensors.values()),
        tiled=tiled,
        cpu=device in SHARED,
    )


def _numbers(source: Source, weight_dtype: str) -> tuple[str | None, int]:
    """(how linear layers are quantised or None, bytes of a number elsewhere)."""
    kind, tensors = find_kind(source, weight_dtype), source.tensors
    if kind is not None:
        stored = tensors["proj_out.weight"].dtype
        return kind, BYTES[stored] if stored in DTYPES.values() else 2
    stored = next((s.dtype for name, s in tensors.items() if is_quantised(name)), "BF16")
    return None, BYTES[DTYPES.get(weight_dtype, stored)]


def _tensor_bytes(source: Source, weight_dtype: str, backend: str) -> tuple[dict[str, int], int]:
    """(what each tensor takes in memory, bytes of a number where nothing is quantised)."""
    kind, item = _numbers(source, weight_dtype)
    sizes = {name: prod(stored.shape) * (4 if is_float32(name) else item) for name, stored in source.tensors.items()}
    for name in filter(is_quantised, sizes if kind else ()):
        held = held_bytes(source.tensors[name], kind, item, backend)
        sizes[name] = sizes[name] if held is None else held
    return sizes, item


def tokens(config: ModelConfig, width: int, height: int) -> int:
    """Tokens of the finest stage with the history: 2 frames, 2 at half and 16 at a quarter of the resolution."""
    stride = config.vae.scale_factor_spatial * config.transformer.patch_size[1]
    h, w = height // stride, width // stride
    mid, long = ceil(h / 2) * ceil(w / 2), 4 * ceil(h / 4) * ceil(w / 4)
    return (2 + config.defaults.chunk_latent_frames) * h * w + mid + long


def transformer_work(config: ModelConfig, width: int, height: int, item: int) -> int:
    """Activations of one block, the widened weights of one layer, and two prompts' keys and values."""
    t = config.transformer
    text = 2 * 2 * t.num_layers * TOKENS * t.dim * item
    return tokens(config, width, height) * t.dim * (12 + 6 * item) + 2 * t.dim * max(t.ffn_dim, 3 * t.dim) * item + text


def decode_work(config: VAEConfig, latent_height: int, latent_width: int, item: int, device: str = "cpu") -> int:
    """Decoding a chunk whole; most of it grows with the frame's size. item: bytes of a number; device: its kind."""
    width, pixels = config.decoder_base_dim or config.base_dim, latent_height * latent_width
    whole = 4 * FRAMES * width * pixels * config.scale_factor_spatial**2
    block = min(VAE_BLOCK.get(device, VAE_BLOCK_GPU), whole)
    return int((pixels * VAE_PER_PIXEL * width / VAE_WIDTH + 4 * block) * item / 4)


def _decoding(config: VAEConfig, frame: tuple[int, int], item: int, device: str, tiling: str) -> tuple[int, int]:
    """What decoding works in as a rule, and where memory is short. frame: in latents."""
    whole = decode_work(config, *frame, item, device)
    tiles = [decode_work(config, *(min(t, n) for n in frame), item, device) for t in TILES]
    return {"off": (whole, whole), "on": (tiles[0], tiles[0]), "auto": (whole, tiles[-1])}[tiling]


def choose_tile(config: VAEConfig, shape: tuple, item: int, device: str, free: int | None) -> int | None:
    """Latents per side of the tiles to decode latents [b c t h w] in; None where the whole frame fits."""
    height, width = shape[3:]
    if free is None or shape[0] * decode_work(config, height, width, item, device) <= free:
        return None
    return next((t for t in TILES if shape[0] * decode_work(config, t, t, item, device) <= free), TILES[-1])


def find_tile(config: VAEConfig, tiling: str, shape: tuple, item: int, device: str, free: int | None) -> int | None:
    """The same for a tiling of auto, on or off; says so where memory decides for tiles."""
    if tiling != "auto":
        return TILES[0] if tiling == "on" else None
    tile = choose_tile(config, shape, item, device, free)
    if tile is not None:
        LOG.warning("%s are free: the VAE decodes in tiles, whose colours may differ a little", size(free))
    return tile


def host_free() -> int | None:
    """Bytes of host memory that can still be had, the container's limit included; None where nobody says."""
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _physical()
    return min([free, *_container()])


def _container() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        return []


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
