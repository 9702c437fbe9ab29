"""Passes over weights that lie in a file and do not fit into memory: page by page, and asked for ahead.

python tests/benchmarks/reading.py --folder /somewhere/with/room --gb 3

A file of layers is mapped as a checkpoint is; each pass multiplies all of them, block by block, after the system was
told to drop what it had read (Linux). Medians of interleaved passes, beside the disk alone and the products alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[3])]
SIDE, LAYERS, TOKENS = 4096, 4, 64  # a block is LAYERS bfloat16 matrices of SIDE x SIDE, 134 MB
BLOCK = 2 * SIDE * SIDE * LAYERS


def write(path: Path, blocks: int) -> None:
    with path.open("wb") as file:
        for i in range(blocks):
            weight = torch.randn(LAYERS, SIDE, SIDE, generator=torch.Generator().manual_seed(i)) / SIDE**0.5
            file.write(weight.bfloat16().view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())


def mapped(path: Path, blocks: int):
    """The blocks as modules of mapped weights, and path -> bytes."""
    from helios_video.helios_core.backends.torch.files import map_file

    data = map_file(path)
    made = nn.ModuleList()
    for i in range(blocks):
        weights = data[i * BLOCK : (i + 1) * BLOCK].view(torch.bfloat16).view(LAYERS, SIDE, SIDE)
        made.append(nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in weights))
    return made, {path: data}


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(blocks, x: torch.Tensor) -> None:
    for block in blocks:
        for weight in block:
            x = x @ weight.T


def disk(path: Path) -> None:
    data = bytearray(8 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(data):
            pass


def measure(path: Path, blocks: int, repeats: int) -> dict[str, float]:
    from helios_video.helios_core.backends.torch.ahead import Ahead

    x, seconds = torch.randn(TOKENS, SIDE).bfloat16(), {}

    def passing(ahead: bool) -> None:
        made, places = mapped(path, blocks)
        run(Ahead.of(made, places)(made) if ahead else made, x)

    ways = {
        "page by page": lambda: passing(False),
        "asked for ahead": lambda: passing(True),
        "the disk": lambda: disk(path),
    }
    for _ in range(repeats):
        for name, way in ways.items():
            drop(path)
            start = time.perf_counter()
            way()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    kept, _ = mapped(path, 1)
    start = time.perf_counter()
    run([kept[0]] * blocks, x)
    return {name: median(found) for name, found in seconds.items()} | {"products alone": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    blocks = max(3, round(args.gb * 1e9 / BLOCK))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, torch.inference_mode():
        path = Path(folder) / "weights"
        write(path, blocks)
        for name, took in measure(path, blocks, args.repeats).items():
            print(f"{name:20}{took:8.2f} s{blocks * BLOCK / took / 1e6:8.0f} MB/s", flush=True)


if __name__ == "__main__":
    main()
