"""What a chunk costs on a GPU, counted on fake CUDA tensors: FLOPs, bytes moved, peak memory, waits of the host.

The real pipeline at the published width in every mode, without a GPU and without weights: FakeTensorMode finds faults
of device, type and shape, and a dispatch mode counts. Needs g++ where torch is built without CUDA. A second chunk is
counted, with one step more in its first stage, which is what a step costs and is taken off the chunk.

    python tests/benchmarks/counted.py
    python tests/benchmarks/counted.py --layers 40 --only "t2v;decode"
    python tests/benchmarks/counted.py --freeze

The last writes counted.json, which tests/backends/test_fake_cuda.py holds the code to.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import fake_cuda  # noqa: E402

GIB = 2**30
SIZE = (640, 384)
ONE = (1, 1, 1)
FAULTS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError)
FAULTS += (TypeError, ValueError)


@dataclass(frozen=True)
class Mode:
    """A way to run. load, sample: options; start: image or video; stay: blocks that do when they stream; lora: merge or
    apply; drift: a policy; kernels: Triton's are there."""

    load: dict = field(default_factory=dict)
    sample: dict = field(default_factory=dict)
    start: str = ""
    batch: int = 1
    stay: int | None = None
    lora: str = ""
    drift: str = ""
    kernels: bool = False


def _weights(dtype: str, **more) -> Mode:
    return Mode({"weight_dtype": dtype, **more.pop("load", {})}, **more)


BLOCKS = {"offload": "blocks"}
GUIDED = {"cfg": 5.0}
ZERO = {"cfg": 5.0, "guidance": "cfg_zero_star", "solver": "unipc"}
SAMPLED = {
    "t2v": Mode(),
    "t2v, kernels": Mode(kernels=True),
    "i2v": Mode(start="image"),
    "v2v": Mode(start="video"),
    "cfg": Mode(sample=GUIDED),
    "cfg zero, unipc": Mode(sample=ZERO),
    "batch of 2, cfg": Mode(sample=GUIDED, batch=2),
    "lora beside": Mode(lora="apply"),
    "lora merged": Mode(lora="merge"),
    "fp32": _weights("fp32"),
    "fp8_e4m3fn": _weights("fp8_e4m3fn"),
    "int8": _weights("int8"),
    "int4": _weights("int4"),
    "int4, lora": _weights("int4", lora="apply"),
    "streamed": Mode(BLOCKS),
    "streamed, one stays": Mode(BLOCKS, stay=1),
    "streamed, cfg": Mode(BLOCKS, GUIDED),
    "streamed, int8, lora": _weights("int8", load=BLOCKS, lora="apply"),
    "streamed, fp8_e4m3fn, i2v": _weights("fp8_e4m3fn", load=BLOCKS, start="image"),
    "sequential": Mode({"offload": "sequential"}),
    "drift, renormalise": Mode(drift="renormalise"),
    "drift, corrupt": Mode(drift="corrupt"),
}
DECODED = {
    "decode": {},
    "decode, bf16": {"vae_dtype": "bf16"},
    "decode, bf16, kernels": {"vae_dtype": "bf16", "kernels": True},
    "decode, bf16, tiles": {"vae_dtype": "bf16", "vae_tiling": "on"},
}


class Runs:
    """Modes run on a checkpoint of so many layers; counts: a support.counted.Counts."""

    def __init__(self, counts, folder: Path, layers: int):
        from helios_video.helios_core.backends import torch as backend

        self.counts, self.folder = counts, folder
        self.made = fake_cuda.checkpoint(folder / "published", layers)
        backend.shapes = cache(backend.shapes)  # the same of every mode

    def open(self, mode: Mode, **options):
        """The pipeline of a mode."""
        from helios_video.helios_core import load
        from helios_video.helios_core.with_loras import with_loras

        choices = {"weight_dtype": "bf16", "offload": "none", **mode.load, **options}
        helios = load(self.made, backend="torch", cache_folder=None, weights_folder=None, **choices)
        if mode.lora:
            helios = with_loras(helios, [(self._lora(), 1.0)], mode=mode.lora)
        if choices["offload"] == "blocks":
            stream = helios.parts.transformer.streamer
            real, stream.keep = stream.keep, lambda model, count: None
            real(helios.parts.transformer, mode.stay or 0)
        return helios

    def _lora(self) -> Path:
        """A file of rank 4 for three layers of two blocks."""
        import numpy as np
        from safetensors.numpy import save_file

        path, wide = self.folder / "lora.safetensors", 13824
        layers = {"attn1.to_q": (5120, 5120), "attn2.to_k": (5120, 5120), "ffn.net.0.proj": (wide, 5120)}
        tensors = {
            f"transformer.blocks.{i}.{layer}.lora_{side}.weight": np.zeros(
                (4, n) if side == "A" else (o, 4), np.float32
            )
            for i in (0, 1)
            for layer, (o, n) in layers.items()
            for side in "AB"
        }
        save_file(tensors, path)
        return path

    def sample(self, mode: Mode, size=SIZE, steps=ONE) -> dict:
        """A second chunk: what a step per stage costs, and what a chunk does beside."""
        import torch
        from helios_video.helios_core.backends.torch import triton_ops
        from helios_video.helios_core.history import parse_policy, remember
        from helios_video.helios_core.noise import batch_noise
        from helios_video.helios_core.text import Embedding

        triton_ops.trusted = lambda *args: mode.kernels
        helios, (width, height) = self.open(mode), size
        image, video = torch.zeros(1, height, width, 3), torch.zeros(33, height, width, 3)
        start = {"image": {"image": image}, "video": {"video": video}}.get(mode.start, {})
        history = helios.history(width, height, batch=mode.batch, **start)
        text = [Embedding(torch.zeros(1, 256, 4096), 512) for _ in range(2)]
        run = dict(seed=0, negative=text[1], boost_first_chunk=False, **mode.sample)
        with skipping_blocks(helios, mode):
            *_, step = helios.sample(history, text[0], steps=steps, **run)
        if mode.drift:
            policy, noise = parse_policy(mode.drift), batch_noise(0, mode.batch)
            history = remember(history, step.latent, policy, noise=noise, array=helios.backend.array)[0]
        else:
            history = history.append(step.latent)
        gc.collect()
        self.counts.begin()
        sampling = helios.sample(history, text[0], steps=(steps[0] + 1, *steps[1:]), **run)
        first, second, *_ = found = [self.read() for _ in sampling]
        more = subtract(second, first)
        return {"chunk": without(found[-1], more, first), "more": more}

    def decode(self, options: dict, size=SIZE) -> dict:
        """A chunk decoded, once the VAE is there."""
        import torch
        from helios_video.helios_core.backends.torch import triton_ops

        options = dict(options)
        found = options.pop("kernels", False)
        triton_ops.trusted = lambda *args: found
        helios, (width, height) = self.open(Mode(), **{"vae_dtype": "fp32", **options}), size
        latent = torch.zeros(1, 16, 9, height // 8, width // 8)
        assert helios.parts.vae
        gc.collect()
        self.counts.begin()
        helios.decode(latent)
        return {"chunk": self.read()}

    def read(self) -> dict:
        """What was counted since `begin`: tera-FLOP and GB by kind, GiB of peak, waits and where."""
        counts = self.counts
        return {
            "TFLOP": {kind: n / 1e12 for kind, n in counts.work.flops.items()},
            "GB": {kind: n / 1e9 for kind, n in counts.work.moved.items()},
            "calls": dict(counts.work.calls),
            "peak": counts.peak["cuda"] / GIB,
            "waits": list(counts.waits),
            "events": counts.events,
        }


def subtract(more: dict, less: dict) -> dict:
    """What the one has beside the other."""
    kinds = {name: {k: more[name][k] - less[name].get(k, 0) for k in more[name]} for name in ("TFLOP", "GB", "calls")}
    return kinds | {"waits": len(more["waits"]) - len(less["waits"]), "events": more["events"] - less["events"]}


def without(whole: dict, more: dict, before: dict) -> dict:
    """What a chunk costs without its second step. before: what was counted until that began."""
    waits = whole["waits"][: len(before["waits"])] + whole["waits"][len(before["waits"]) + more["waits"] :]
    return {**subtract(whole, more | {"waits": waits}), "peak": whole["peak"], "waits": waits}


@contextmanager
def skipping_blocks(helios, mode: Mode):
    """A first chunk, which has keys and values, tables and streams made, without what its blocks compute."""
    if mode.load.get("offload") == "sequential":  # the next one's network is another
        yield
        return
    model = helios.parts.transformer
    real, model.run = model.run, lambda block, streams, *_: streams
    try:
        yield
    finally:
        model.run = real


def prepare(folder: Path, layers: int) -> Callable:
    """Has torch believe in a GPU. A function from a mode's name to what it costs."""
    fake_cuda.install(fake_cuda.build_guard(folder))
    from support import counted

    counts = counted.Counts()
    counted.install(counts)
    gc.freeze()  # what is imported by now is not looked through again
    runs = SimpleNamespace()

    def run(name: str, size=SIZE, steps=ONE) -> dict:
        with fake_cuda.faked(counts):
            if not hasattr(runs, "of"):
                runs.of = Runs(counts, folder, layers)
            return (
                runs.of.decode(DECODED[name], size) if name in DECODED else runs.of.sample(SAMPLED[name], size, steps)
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--only", help="names of modes, separated by semicolons")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", action="store_true", help="for the test")
    parser.add_argument("--freeze", action="store_true", help="write the record")
    args = parser.parse_args()
    names = [*SAMPLED, *DECODED] if args.only is None else args.only.split(";")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(Path(folder), args.layers)
        for name in names:
            then = time.monotonic()
            found[name] = attempt(run, name, tuple(args.size), args.json)
            if not args.json:
                show(name, found[name], time.monotonic() - then)
    if args.json:
        print(json.dumps(found))
    if args.freeze:
        freeze(found)


def attempt(run: Callable, name: str, size, tell: bool) -> dict:
    """The mode's costs and their totals; tell: of one that fails its error instead."""
    try:
        found = run(name, size)
    except FAULTS as error:
        if not tell:
            raise
        return {"error": f"{type(error).__name__}: {error}"}
    chunk = found["chunk"]
    total = {"TFLOP": sum(chunk["TFLOP"].values()), "GB": sum(chunk["GB"].values()), "peak GiB": chunk["peak"]}
    return found | {"total": {what: round(n, 3) for what, n in total.items()}}


def freeze(found: dict) -> None:
    """Writes the record."""
    import torch

    record = {"torch": ".".join(torch.__version__.split(".")[:2])}
    record["modes"] = {name: mode["total"] for name, mode in found.items()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def show(name: str, found: dict, seconds: float) -> None:
    """A few lines."""
    chunk = found["chunk"]
    numbers = [f"{kind} {n:.2f} TFLOP" for kind, n in chunk["TFLOP"].items()]
    numbers += [f"{kind} {n:.1f} GB" for kind, n in chunk["GB"].items()]
    print(f"{name}: {', '.join(numbers)}, peak {chunk['peak']:.2f} GiB ({seconds:.1f} s)")
    print(f"  waits {len(chunk['waits'])}, for events {chunk['events']}", *chunk["waits"], sep="\n    ", flush=True)
    if "more" in found:
        print(f"  waits of a step more: {found['more']['waits']}, for events {found['more']['events']}")


if __name__ == "__main__":
    main()
