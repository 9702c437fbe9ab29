"""What `helios bench speed` asks of torch: random weights in place, a device's ceilings, what a step should cost."""

from __future__ import annotations

import platform
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoint import is_float32
from ...config import ModelConfig
from ...devices import host_free
from ...history import History
from ...text import Embedding
from .compiled import run
from .counting import Counting, Work
from .transformer import HeliosTransformer
from .vae import WanVAE

PROCESS = Path("/proc/self")  # on Linux
PATTERN = 1 << 22  # numbers that are drawn once and repeated
# TFLOP/s of bfloat16 products without sparsity, summed in float32, and TB/s of memory, as the makers say.
PEAKS = {
    "H200": (989, 4.8),
    "H100": (989, 3.35),
    "B200": (2250, 8.0),
    "A100": (312, 2.0),
    "L40S": (362, 0.86),
    "RTX 5090": (210, 1.79),
    "RTX 4090": (165, 1.01),
    "RTX 4080": (97, 0.72),
    "RTX 3090": (71, 0.94),
    "RTX 3060": (25, 0.36),
}


def machine(device) -> str:
    """The device, its makers' figures where known, and torch."""
    device = torch.device(device)
    if device.type != "cuda":
        threads = torch.get_num_threads()
        return f"{chip()}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"
    name = torch.cuda.get_device_name(device)
    peak = next((f" ({p} TFLOP/s, {m} TB/s by its maker)" for key, (p, m) in PEAKS.items() if key in name), "")
    return f"{name}{peak}, torch {torch.__version__}"


def chip() -> str:
    """The processor's name, as far as the system tells it."""
    facts = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", facts.read_text()) if facts.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def wait(device) -> None:
    """Until the device has done what it was given."""
    kind = torch.device(device).type
    if kind in ("cuda", "mps"):
        getattr(torch, kind).synchronize()


def reset_peak(device) -> None:
    """The peak is what there is now."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif PROCESS.is_dir():
        (PROCESS / "clear_refs").write_text("5")


def peak(device) -> int | None:
    """Bytes of the device, on a CPU of the process, at the highest since then; None where nobody counts."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if kind != "cpu" or not PROCESS.is_dir():
        return None
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())[1])


def compiled(network: nn.Module) -> bool:
    """Whether a transformer's blocks run compiled."""
    ways = getattr(network.run, "ways", None)
    return bool(ways) and ways[0][1] is not run


@torch.inference_mode(False)
@torch.no_grad()
def randomise(network: nn.Module) -> bool:
    """Gives a network random weights in place, of a size that keeps what passes through it. False where the host has
    no room for those that it maps from a file: they stay zero."""
    on_host = sum(t.nbytes for t in (*network.parameters(), *network.buffers()) if t.device.type == "cpu")
    room = host_free()
    if room is not None and on_host > 0.8 * room:
        return False
    for name, t in (*network.named_parameters(), *network.named_buffers()):
        _fill(name, t)
    return True


def _fill(name: str, t: Tensor) -> None:
    if not t.is_floating_point():
        t.view(torch.uint8).random_(0, 256)
    elif t.element_size() == 1:
        _repeat(t, 100.0)
    elif "scale" in name and "table" not in name:
        t.fill_(1e-4)
    elif "norm" in name or "gamma" in name:
        t.fill_(1)
    elif t.ndim > 1:
        _repeat(t, (t.numel() / len(t)) ** -0.5)


def _repeat(t: Tensor, size: float) -> None:
    """Normal numbers of that size, a block of them again and again."""
    flat = t.view(-1)
    block = (torch.randn(min(PATTERN, len(flat)), device=t.device) * size).clamp_(-400, 400).to(t.dtype)
    for part in flat.split(len(block)):
        part.copy_(block[: len(part)])


def ceilings(device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a product of large matrices, and bytes/s of a copy, the best of a few, measured."""
    gpu = torch.device(device).type != "cpu"
    side, count = (8192, 2**28) if gpu else (1536, 2**26)
    x = torch.randn(side, side, device=device).to(dtype)
    y, z = torch.empty(2, count, dtype=torch.uint8, device=device).unbind()
    product = _best(device, lambda: x @ x)
    return 2 * side**3 / product, 2 * count / _best(device, lambda: z.copy_(y))


def _best(device, run, times: int = 5) -> float:
    found = []
    for _ in range(times + 1):
        wait(device)
        then = time.perf_counter()
        run()
        wait(device)
        found.append(time.perf_counter() - then)
    return min(found[1:])


@torch.no_grad()
def count_steps(config: ModelConfig, width: int, height: int, dtype: torch.dtype) -> list[Work]:
    """What a step of each stage costs, from the coarsest on: one that computes on shapes alone, of one layer and of
    two; all layers are alike."""
    found = []
    for layers in (1, 2):
        found.append([_count_step(config, layers, size, dtype) for size in stage_sizes(config, width, height)])
    more = config.transformer.num_layers - 1
    return [one.plus(two.plus(one, -1), more) for one, two in zip(*found)]


def stage_sizes(config: ModelConfig, width: int, height: int) -> list[tuple[int, int, tuple[int, int]]]:
    """(the frame's height and width, (a stage's)), in latents."""
    h, w, last = height // 8, width // 8, config.schedule.stages - 1
    return [(h, w, (h >> (last - i), w >> (last - i))) for i in range(last + 1)]


def _count_step(config: ModelConfig, layers: int, size, dtype: torch.dtype) -> Work:
    with torch.device("meta"):
        model = HeliosTransformer(replace(config.transformer, num_layers=layers)).train(False).requires_grad_(False)
    for name, p in model.named_parameters():
        p.data = p.data.to(torch.float32 if is_float32(name) else dtype)
    h, w, stage = size
    frames = config.defaults.chunk_latent_frames
    parts = History(np.zeros((1, 16, 19, h, w), np.float32)).parts(frames)
    contexts = model.fuse().text_context(Embedding(np.zeros((1, 256, config.transformer.text_dim), np.float32), 512))
    history = model.history_context(parts)
    with Counting() as counting:
        model.attend_by(counting.attend)
        model.velocity(torch.empty(1, 16, frames, *stage, device="meta"), 500.0, contexts, history)
    return counting.work


@torch.no_grad()
def count_decode(config: ModelConfig, width: int, height: int, dtype: torch.dtype) -> Work:
    """The same of decoding a chunk, as a GPU does it."""
    with torch.device("meta"):
        vae = WanVAE(config.vae).train(False).requires_grad_(False).to(dtype)
    z = torch.empty(1, 16, config.defaults.chunk_latent_frames, height // 8, width // 8, dtype=dtype, device="meta")
    with Counting() as counting:
        for _ in vae.stream(z):
            pass
    return counting.work
