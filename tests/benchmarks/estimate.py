"""What the estimate says a run needs of a GPU's memory, beside a trace of the real networks on fake CUDA tensors.

Weights are holes in files, and nothing is computed, so that forty layers of the published width need no GPU. A chunk is
sampled in every offload mode and weight dtype, and decoded in every VAE dtype and tile size. Needs g++ where torch is
built without CUDA.

    python tests/benchmarks/estimate.py
    python tests/benchmarks/estimate.py --layers 2 --json
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import fake_cuda  # noqa: E402

GIB = 2**30
SIZES = ((640, 384), (1280, 704))
SMALL = (256, 256)
MODES = ("none", "blocks", "sequential")
DTYPES = ("bf16", "fp16", "fp32", "fp8_e4m3fn", "int8", "int4")
DECODED = ("bf16", "int4")  # weights beside which a chunk is decoded; what stands is seen in sampling too
VAE_DTYPES, TILES = ("fp32", "bf16"), (None, 32, 24, 16)
MOMENTS = ("encode", "sample", "decode")


class Run:
    """A pipeline on fake tensors, and the bytes that are live on its device."""

    def __init__(self, live, folder: Path, mode: str, dtype: str):
        from helios_video.helios_core import load

        self.live, self.mode, self.dtype = live, mode, dtype
        self.helios = load(
            folder,
            backend="torch",
            offload=mode,
            weight_dtype=dtype,
            vae_dtype="fp32",
            vae_tiling="off",
            cache_folder=None,
            weights_folder=None,
        )
        if mode == "blocks":  # the least: none stays
            stream = self.helios.parts.transformer.streamer
            keep = stream.keep
            stream.keep = lambda model, count: keep(model, 0)

    def peak(self, work) -> int:
        """Bytes on the device at the highest while work() ran."""
        gc.collect()
        self.live.reset()
        work()
        return self.live.peak["cuda"]

    def encode(self) -> int:
        """Of one prompt; the encoder goes afterwards."""
        found = self.peak(lambda: self.helios.parts.text_encoder("a red circle moves over a field"))
        self.helios.parts.release("text_encoder")
        return found

    def sample(self, width: int, height: int, batch: int = 1) -> int:
        """Of one chunk, a step per stage, for a prompt of 256 tokens."""
        import torch
        from helios_video.helios_core.text import Embedding

        history, text = self.helios.history(width, height, batch=batch), Embedding(torch.zeros(1, 256, 4096), 512)
        run = dict(seed=0, steps=(1, 1, 1), boost_first_chunk=False)
        return self.peak(lambda: [None for _ in self.helios.sample(history, text, **run)])

    def decode(self, width: int, height: int) -> int:
        """Of one chunk."""
        import torch

        assert self.helios.parts.vae  # its turn first: what leaves for it is no need of the decode
        return self.peak(lambda: self.helios.decode(torch.zeros(1, 16, 9, height // 8, width // 8)))

    def set_vae(self, dtype: str, tile: int | None) -> None:
        """The VAE in a dtype, and in tiles of so many latents."""
        from helios_video.helios_core.devices import decoding

        parts, tiling = self.helios.parts, "off" if tile is None else "on"
        decoding.TILES = decoding.TILES if tile is None else (tile,)
        if parts.choices.vae_dtype != dtype:
            parts.release("vae")
        parts.choices = replace(parts.choices, vae_dtype=dtype, vae_tiling=tiling)
        parts.vae.tiling = tiling

    def row(self, size, moment: str, traced: int, vae: str = "fp32", tile: int | None = None, batch: int = 1) -> dict:
        """A result beside the estimate, in GiB."""
        found = self.helios.parts.estimate(*size, batch=batch).moments(self.mode)[moment]
        about = {"mode": self.mode, "weights": self.dtype, "size": "{}x{}".format(*size), "vae": vae}
        about |= {"tile": tile or "whole", "batch": batch, "moment": moment}
        numbers = {"estimate": found / GIB, "traced": traced / GIB, "ratio": found / traced}
        return about | {name: round(number, 3) for name, number in numbers.items()}


def weight_dtypes(live, folder: Path, sizes):
    """Rows of every offload mode and weight dtype: a chunk sampled as all but the first are, with the VAE loaded."""
    for mode, dtype in product(MODES, DTYPES):
        run = Run(live, folder, mode, dtype)
        if mode == "sequential":  # loads as it is first used: at a small size that takes more than a step
            yield run.row(SMALL, "sample", run.sample(*SMALL))
        if dtype in DECODED:
            run.sample(*sizes[0])
            yield run.row(sizes[0], "decode", run.decode(*sizes[0]))
        elif mode != "sequential":
            assert run.helios.parts.transformer and run.helios.parts.vae  # in this order: blocks let go of a VAE
        for size in sizes:
            yield run.row(size, "sample", run.sample(*size))


def vae_dtypes(live, folder: Path, sizes):
    """Rows of every VAE dtype and tile size beside a transformer; of the text encoder and of a batch."""
    run = Run(live, folder, "none", "int4")
    yield run.row(sizes[0], "encode", run.encode())
    run.decode(*sizes[0])
    yield run.row(sizes[0], "sample", run.sample(*sizes[0], batch=2), batch=2)
    for size, dtype, tile in product(sizes, VAE_DTYPES, TILES):
        run.set_vae(dtype, tile)
        yield run.row(size, "decode", run.decode(*size), dtype, tile)


def show(rows) -> None:
    """A table as the rows come, then the best and worst of each moment."""
    found = []
    for row in rows:
        if not found:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
        found.append(row)
    for moment in MOMENTS:
        ratios = [row["ratio"] for row in found if row["moment"] == moment]
        print(f"{moment}: estimate / traced from {min(ratios)} to {max(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", action="store_true", help="rows as JSON, for the test")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fake_cuda.install(fake_cuda.build_guard(Path(folder)))
        with fake_cuda.traced() as live:
            made = fake_cuda.checkpoint(Path(folder) / "published", args.layers)
            sizes = tuple(map(tuple, args.size or SIZES))
            rows = (row for part in (vae_dtypes, weight_dtypes) for row in part(live, made, sizes))
            print(json.dumps(list(rows))) if args.json else show(rows)


if __name__ == "__main__":
    main()
