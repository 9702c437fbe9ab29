"""What a run needs of device and host memory, from file headers and configs alone; so before anything loads.

One idea: which parts stand together at the moment of the highest need. There are three such moments. Prompts are
encoded with the text encoder alone, for it goes once they are. A chunk is sampled with the transformer, the keys and
values of its prompts and, unless parts take turns, the VAE. A chunk is decoded with the same, and the VAE at work.
Weights are counted exactly, working memory as what the code holds at its widest point; traced on a GPU's tensors at the
published sizes each moment is right to ten per cent (tests/devices/test_traced.py, tests/benchmarks/estimate.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from ..checkpoint import (
    BYTES,
    DTYPES,
    Source,
    compute_format,
    find_kind,
    held_bytes,
    is_float32,
    is_kept,
    is_quantised,
    split_kind,
)
from ..config import ModelConfig
from . import decoding
from .encoding import encoder_bytes
from .ways import vae_numbers
from .working import stream_bytes, transformer_work

GIB = 2**30
OFFLOAD = ("auto", "none", "blocks", "sequential")
SHARED = ("cpu", "metal", "mps")  # kinds of device whose memory is the host's
TILING = ("auto", "off", "on")
BASE = GIB  # Python, torch and a device's context
CONTEXT = GIB // 4  # of a device, for kernels that load as they are first called, and what lies idle between tensors
PROMPTS, TOKENS = 2, 256  # whose keys and values stay with the transformer; of a long prompt (512 is the most)
QUANTISING = {"fp8_e4m3fn": 3, "int8": 3, "int4": 4.5}  # float32 copies of a weight that making its codes takes
TRANSFORMER, VAE, TEXT = "transformer", "vae", "text_encoder"


@dataclass(frozen=True)
class Estimate:
    """Bytes. parts: the weights of transformer, vae and text_encoder; work: what each computes in.

    block: one transformer block's matrices, blocks: how many there are; rest: the transformer without them, on the
    device in any mode. prompts: keys and values that stay with it. loading: what quantising takes beside the weights
    that are done. largest: of any tensor as it is read. tiled: decoding's work in the smallest tiles that may be
    chosen; copies: what convolutions take beside. guided: the second branch of guidance, which goes through each
    streamed block with the first. cpu: the device is the host. keeps: a host around the pipeline keeps evicted parts
    in its memory.
    """

    parts: dict[str, int]
    work: dict[str, int]
    block: int
    blocks: int
    rest: int
    prompts: int
    loading: int
    largest: int
    tiled: int
    copies: int
    cpu: bool
    keeps: bool = False
    guided: int = 0

    def moments(self, offload: str, *, tiled: bool = False) -> dict[str, int]:
        """Bytes of all tensors on the device at each height of a run: encode, sample, decode.

        tiled: with decoding in the smallest tiles that may be chosen.
        """
        together = offload != "sequential"
        model, quantising = self.parts[TRANSFORMER], self.loading
        if offload == "blocks":
            model, quantising = self.rest + 2 * self.block, 0  # done on the host
        working = self.work[TRANSFORMER] + (self.guided if offload == "blocks" else 0)
        sampling = model + max(self.prompts + working, quantising)
        decoding = self.parts[VAE] + (self.tiled if tiled else self.work[VAE])
        return {
            "encode": self.parts[TEXT] + self.work[TEXT],
            "sample": sampling + (self.parts[VAE] if together else 0),
            "decode": decoding + (model + self.prompts if together else 0),
        }

    def device(self, offload: str, *, tiled: bool = False) -> int:
        """Bytes of all tensors on the device at the highest. Prompts count on the host: where the text encoder does not
        fit, it has its turn on the CPU."""
        moments = self.moments(offload, tiled=tiled)
        if not self.cpu:
            return max(moments["sample"], moments["decode"])
        kept = self.parts[TEXT] if self.keeps and offload == "none" else 0
        return max(moments["encode"], moments["sample"] + kept, moments["decode"] + kept)

    @property
    def spare(self) -> int:
        """Bytes of the device that must be free beside its tensors."""
        return 0 if self.cpu else CONTEXT + self.copies

    def fits(self, offload: str, free: int | None, *, tiled: bool = False) -> bool:
        """Whether a mode does with `free` bytes of the device; unknown: it does."""
        return free is None or self.device(offload, tiled=tiled) + self.spare <= free

    def stay(self, free: int | None) -> int:
        """How many blocks stay on a device with `free` bytes while the others stream, decoding whole or else in tiles;
        unknown: none."""
        if free is None or self.cpu:
            return 0
        for tiled in (False, True):
            left = free - self.device("blocks", tiled=tiled) - self.spare
            if left >= 0:
                return min(self.blocks, left // self.block)
        return 0

    def part(self, name: str, offload: str) -> int:
        """Bytes on the device while one part runs: it alone, or with the streamed transformer that stays."""
        own = self.parts[name] + self.work[name] + (self.prompts if name == TRANSFORMER else 0)
        if offload != "blocks":
            return own
        streamed = self.rest + 2 * self.block + self.prompts
        return streamed + (self.work[name] if name == TRANSFORMER else own)

    def host(self, offload: str) -> int:
        """Bytes of host memory at the highest, a file's mapped pages included.

        Where the device's memory is short, the text encoder has its turn on the CPU.
        """
        if self.cpu:
            return BASE + self.device(offload)
        model = self.parts[TRANSFORMER] + 2 * self.block if offload == "blocks" else 0
        encoder = self.parts[TEXT] if offload != "none" or self.keeps else 0
        return BASE + max(model + encoder if self.keeps else max(model, encoder), 2 * self.largest)

    def keeps_in_host(self, free: int | None, offload: str = "sequential") -> tuple[str, ...]:
        """The parts that a mode has leave the device and that `free` bytes of host memory can hold meanwhile, so that
        they come back without being read, and quantised, again. What takes longest to load goes first; unknown: none.
        """
        if self.cpu or free is None:
            return ()
        kept, left = [], free - BASE - 2 * self.largest
        for name in (TRANSFORMER, VAE, TEXT) if offload == "sequential" else (TEXT,):
            if self.parts[name] <= left:
                kept.append(name)
                left -= self.parts[name]
        return tuple(kept)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of offload, the fastest first in a video of several chunks: each chunk has all parts take turns."""
        return ("none", "sequential") if self.cpu else ("none", "blocks", "sequential")

    def choose(self, free: int | None) -> str:
        """The fastest offload that fits into `free` bytes of the device, decoding whole or else in tiles; if none does,
        that of the least need."""
        for tiled in (False, True):
            for mode in self.modes:
                if self.fits(mode, free, tiled=tiled):
                    return mode
        return min(self.modes, key=lambda mode: self.device(mode, tiled=True))

    def describe(self, offload: str, weight_dtype: str, free: int | None = None) -> str:
        """Two lines for people: the parts, then the needs. free: bytes of the device."""
        parts = ", ".join(f"{name.replace('_', ' ')} {size(n)}" for name, n in self.parts.items())
        needs = f"host {size(self.host(offload))}"
        if not self.cpu:
            least = self.device(offload, tiled=True) + self.spare
            needs += f", device {size(self.device(offload) + self.spare)}"
            needs += (
                f" ({size(least)} decoding in tiles)" if size(least) != size(self.device(offload) + self.spare) else ""
            )
        if offload == "blocks" and (stay := self.stay(free)):
            needs += f"; {stay} of {self.blocks} blocks stay on it"
        return f"weights: {parts} (weight dtype {weight_dtype})\nneeded with offload {offload}: {needs}"

    def shortage(self, offload: str, free: int | None, host: int | None) -> str | None:
        """What does not fit, with what to choose instead; None if all does, as far as is known."""
        if not self.cpu and not self.fits(offload, free, tiled=True):
            needed = size(self.device(offload, tiled=True) + self.spare)
            what = f"needs {needed} of device memory with offload {offload}, {size(free)} are free"
            return f"{what}; {ADVICE[offload]}"
        if host is not None and self.host(offload) > host:
            return f"needs {size(self.host(offload))} of host memory, {size(host)} are free; {HOST_ADVICE}"
        return None


SMALLER = "a weight dtype of fewer bits (fp8_e4m3fn, int8, int4), or a smaller size"
ADVICE = {
    "none": f"choose offload auto, blocks or sequential, or {SMALLER}",
    "sequential": f"choose offload blocks, or {SMALLER}",
    "blocks": f"choose {SMALLER}",
}
HOST_ADVICE = "close other programs, or choose a weight dtype of fewer bits (fp8_e4m3fn, int8, int4)"


def size(nbytes: int) -> str:
    """Bytes for people."""
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= GIB / 10 else f"{nbytes / 2**20:.0f} MiB"


def estimate(
    sources: dict[str, Source], config: ModelConfig, *, width: int, height: int, batch: int = 1, device: str = "cpu",
    fast_bf16: bool = False, weight_dtype="auto", vae_dtype="auto", vae_tiling="auto", backend="torch",
    keeps: bool = False,
) -> Estimate:  # fmt: skip
    """The needs of videos of width x height pixels, `batch` of them sampled at once and decoded one by one.

    device: its kind, such as cpu, cuda, mps. fast_bf16: whether it multiplies bfloat16 at speed. keeps: whether a host
    around the pipeline keeps evicted parts in its memory. ValueError for a size below one latent.
    """
    if min(width, height) < (scale := config.vae.scale_factor_spatial):
        raise ValueError(f"size {width}x{height}: a latent is {scale} pixels wide and high, and there must be one")
    kind, item = _numbers(sources[TRANSFORMER], weight_dtype, fast_bf16)
    matrices, rest = _transformer_bytes(sources[TRANSFORMER], (kind, weight_dtype), item, backend)
    pixel = BYTES[DTYPES[vae_numbers(vae_dtype, device, fast_bf16)]]
    work, tiled, copies = _decoding(config, width, height, pixel, device, vae_tiling)
    encoder, encoding = encoder_bytes(sources[TEXT], backend, device)
    vae = sum(prod(stored.shape) for stored in sources[VAE].tensors.values()) * pixel
    return Estimate(
        parts={TEXT: encoder, TRANSFORMER: rest + sum(matrices), VAE: vae},
        work={
            TEXT: encoding,
            TRANSFORMER: transformer_work(config, width, height, item, batch=batch, kind=kind),
            VAE: work,
        },
        block=max(matrices),
        blocks=len(matrices),
        rest=rest,
        prompts=PROMPTS * 2 * config.transformer.num_layers * TOKENS * config.transformer.dim * item,
        loading=_quantising(sources[TRANSFORMER], kind, weight_dtype),
        largest=max(max(s.nbytes, prod(s.shape) * item) for s in sources[TRANSFORMER].tensors.values()),
        tiled=tiled,
        copies=copies,
        cpu=device in SHARED,
        keeps=keeps,
        guided=stream_bytes(config, width, height, batch) if config.defaults.cfg > 1 else 0,
    )


def _numbers(source: Source, weight_dtype: str, fast_bf16: bool) -> tuple[str | None, int]:
    """(how linear layers are quantised or None, bytes of a number elsewhere)."""
    kind = find_kind(source, weight_dtype)
    return kind, BYTES[compute_format(source, "auto" if kind else weight_dtype, fast_bf16=fast_bf16)]


def _transformer_bytes(source: Source, how: tuple, item: int, backend: str) -> tuple[list[int], int]:
    """What the matrices of each block take in memory, and all else. how: kind and weight dtype, as `is_kept` takes
    them. item: bytes of a number that is not quantised."""
    blocks, rest = Counter(), 0
    for name, stored in source.tensors.items():
        held = held_bytes(stored, how[0], item, backend) if is_kept(name, stored, *how) else None
        taken = prod(stored.shape) * (4 if is_float32(name) else item) if held is None else held
        if is_quantised(name):
            blocks[name.split(".")[1]] += taken
        else:
            rest += taken
    return list(blocks.values()), rest


def _quantising(source: Source, kind: str | None, weight_dtype: str) -> int:
    """What making the codes of the largest weight takes; nothing where they are stored."""
    tensors = source.tensors.items()
    plain = [prod(s.shape) for name, s in tensors if is_kept(name, s, kind, weight_dtype) and s.kept is None]
    return int(4 * max(plain) * QUANTISING[split_kind(kind)[0]]) if kind and plain else 0


def _decoding(
    config: ModelConfig, width: int, height: int, item: int, device: str, tiling: str
) -> tuple[int, int, int]:
    """Decoding's work as a rule and in the smallest tiles that may be chosen, and what its convolutions copy."""
    scale = config.vae.scale_factor_spatial
    latent = (1, config.defaults.chunk_latent_frames, height // scale, width // scale)

    def work(tile: int | None, **options) -> int:
        if tile is None:
            return decoding.decode_work(config.vae, latent, item, device, **options)
        return decoding.tiled_work(config.vae, latent, item, tile, kind=device, **options)

    first, last = decoding.TILES[0], decoding.TILES[-1]
    rule, least = {"off": (None, None), "on": (first, last), "auto": (None, last)}[tiling]
    return work(rule), work(least), work(rule, copies=True) - work(rule)
