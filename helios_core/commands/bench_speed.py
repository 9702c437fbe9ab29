"""`helios bench speed`: how fast this machine makes video, as a table to paste. No weights are needed.

A checkpoint of the published sizes is laid out as holes in files, loaded as any is, and given random weights in place.
The second chunk of a video is measured, by stage, in each number format and way of offload that fits, beside what
diffusers takes where it is installed, and beside a bound: each operation's count of FLOPs and bytes at the best speed
of a product and of a copy that this machine shows. A CPU is given a small model by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from .. import load
from ..checkpoint import WEIGHT_DTYPES
from ..config import TransformerConfig, VAEConfig, check_number, check_size, check_whole, limits
from ..devices import BACKENDS, Host, libraries
from ..text import Embedding
from . import HOST, bench_together, gpus, hollow, set_threads

GIB = 2**30
# What a CPU gets: about 16 million parameters in blocks, and a VAE of a twelfth of the width.
SMALL = dict(num_attention_heads=6, ffn_dim=2048, num_layers=2, text_dim=512)
SMALL_VAE, SMALL_SIZE = dict(base_dim=8), (320, 192)
SMALL_TEXT = dict(d_model=512, d_kv=64, d_ff=512, num_layers=1, num_heads=8, vocab_size=320, model_type="umt5")
SMALL_TEXT |= dict(feed_forward_proj="gated-gelu", is_gated_act=True, dense_act_fn="gelu_new")
STEPS = 2  # per stage, as the distilled checkpoint takes
HEAD = "| weights | offload | compiled | stage 1 | stage 2 | stage 3 | decoding | a chunk | frames/s | peak GiB |"


@dataclass(frozen=True)
class Case:
    """One row: what is chosen, as devices.Choices has it."""

    weight_dtype: str
    offload: str = "none"
    compile: str = "auto"


@dataclass
class Row:
    """Seconds of a step of each stage and of decoding a chunk; peak in bytes."""

    name: str
    offload: str
    compiled: str
    stages: list[float]
    decode: float
    peak: int | None = None
    frames: int = 33

    @property
    def chunk(self) -> float:
        """Seconds of all of it."""
        return STEPS * sum(self.stages) + self.decode

    def __str__(self) -> str:
        cells = [f"{seconds:.3g} s" for seconds in (*self.stages, self.decode, self.chunk)]
        cells += [f"{self.frames / self.chunk:.3g}", "" if self.peak is None else f"{self.peak / GIB:.1f}"]
        return f"| {' | '.join([self.name, self.offload, self.compiled, *cells])} |"


class Bench:
    """One machine's. small: for a CPU. counts: of a step of each stage, and of decoding."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.library = libraries.choose(args.backend)
        self.backend = libraries.open_backend(self.library)
        self.speed = import_module(f"..backends.{self.library}.speed", __package__)
        self.device = self.backend.find_device()
        self.small = self.backend.kind(self.device) == "cpu" and not args.full
        own = SMALL_SIZE if self.small else (640, 384)
        self.width, self.height = own if args.width is None else (args.width, args.height)
        self.folder = hollow.checkpoint(
            folder / "published",
            TransformerConfig(**{**(SMALL if self.small else {}), **({"num_layers": n} if (n := args.layers) else {})}),
            VAEConfig(**(SMALL_VAE if self.small else {})),
            self.backend.shapes,
            size=(self.width, self.height),
            **({"text": SMALL_TEXT} if self.small else {}),
        )
        self.host = HOST.get() or Host()
        self.until = time.monotonic() + 60 * ((2 if self.small else 10) if args.minutes is None else args.minutes)
        self.zeros = False

    def cases(self, asked: list[str]) -> Iterator[Case]:
        """asked: weight dtypes, else those to compare here. Of the first also the other way of compiling, and streamed
        blocks."""
        names = asked or (["fp32", "bf16", "int8"] if self.small else ["bf16", "fp8_e4m3fn", "int8", "int4"])
        if not asked and self.library == "mlx":
            names.remove("fp32" if self.small else "fp8_e4m3fn")
        modes = {name: self.open(Case(name, "auto")).parts.offload_mode for name in names}
        yield from (Case(name, mode) for name, mode in modes.items())
        gpu = self.backend.kind(self.device) == "cuda"
        if gpu and modes[names[0]] == "none":
            yield Case(names[0], "blocks")
        if self.library == "torch":
            yield Case(names[0], modes[names[0]], "off" if gpu else "on")

    def open(self, case: Case):
        """The pipeline of a case; nothing is loaded yet."""
        choices = dict(weight_dtype=case.weight_dtype, offload=case.offload, compile=case.compile)
        kept = dict(cache_folder=None, weights_folder=None)
        return load(self.folder, backend=self.library, host=self.host, **kept, **choices)

    def measure(self, case: Case) -> Row:
        """One row. A first chunk has all load, compile and be tuned."""
        helios = self.open(case)
        offload = self._stream(helios, case)
        text = Embedding(np.zeros((1, 256, helios.config.transformer.text_dim), np.float32) + 0.01, 512)
        history = helios.history(self.width, self.height)
        *_, step = self._sample(helios, history, text, 1)
        networks = (helios.parts.transformer, helios.parts.vae)
        self.zeros |= not all([self.speed.randomise(network) for network in networks])
        helios.decode(step.latent)
        history = history.append(step.latent)
        *_, step = self._sample(helios, history, text, 1)  # once more, with the weights
        self.speed.reset_peak(self.device)
        stages = self._stages(self._sample(helios, history, text, STEPS))
        then = time.perf_counter()
        frames = helios.decode(step.latent)
        decode = time.perf_counter() - then
        peak, on = self.speed.peak(self.device), "yes" if self.speed.compiled(networks[0]) else "no"
        helios.parts.release("transformer", "vae")
        self.backend.empty_cache()
        return Row(case.weight_dtype, offload, on, stages, decode, peak, len(frames))

    def _stream(self, helios, case: Case) -> str:
        """What the table says of offload. Blocks that would all fit are streamed all the same, to show its cost."""
        if case.offload != "blocks":
            return case.offload
        parts = helios.parts
        stay = parts.estimate(self.width, self.height).stay(parts.backend.free_memory(self.device))
        blocks = helios.config.transformer.num_layers
        if stay < blocks:
            return f"{stay} of {blocks} blocks stay"
        keep = parts.transformer.streamer.keep
        parts.transformer.streamer.keep = lambda model, count: keep(model, 0)
        return "blocks, none stays"

    def _sample(self, helios, history, text, steps: int):
        plan = dict(steps=(steps,) * helios.config.schedule.stages, boost_first_chunk=False, cfg=1)
        return helios.sample(history, text, seed=0, solver="dmd", **plan)

    def _stages(self, steps) -> list[float]:
        """Seconds of one step of each stage; the device is waited for where a stage ends."""
        found = []
        self.speed.wait(self.device)
        then = time.perf_counter()
        for step in steps:
            if (step.index + 1) % STEPS == 0:
                self.speed.wait(self.device)
                now = time.perf_counter()
                found.append((now - then) / STEPS)
                then = now
        return found

    def bound(self, name: str) -> Row | None:
        """What the counts say a chunk takes at least, at the speeds that this machine shows; None without torch."""
        try:
            import torch

            from ..backends.torch import speed
        except ImportError:
            return None
        dtype = {"fp32": torch.float32, "fp16": torch.float16}.get(name, torch.bfloat16)
        config = self.open(Case(name)).config
        given = dtype if self.library == "torch" else "fp32" if name == "fp32" else "bf16"
        flops, moved = self.speed.ceilings(self.device, given)
        print(
            f"measured here: {flops / 1e12:.3g} TFLOP/s in products, {moved / 1e9:.3g} GB/s in copies", file=sys.stderr
        )
        steps = speed.count_steps(config, self.width, self.height, dtype)
        decode = speed.count_decode(config, self.width, self.height, dtype)
        stages = [work.seconds(flops, moved) for work in steps]
        total = decode.plus(steps[0], 0)
        for work in steps:
            total = total.plus(work, STEPS)
        self.counted = f"{sum(total.flops.values()) / 1e12:.4g} TFLOP, {sum(total.moved.values()) / 1e9:.4g} GB"
        self.ceilings = f"{flops / 1e12:.3g} TFLOP/s in products and {moved / 1e9:.3g} GB/s in copies"
        return Row(f"bound, {name}", "", "", stages, decode.seconds(flops, moved))


def bench_speed(args: argparse.Namespace) -> int:
    """Prints the table. ValueError for a size that cannot be."""
    set_threads(args.threads, args.backend)
    if (args.width is None) != (args.height is None):
        raise ValueError("--width and --height go together")
    for name, most in (("width", limits.SIDE), ("height", limits.SIDE), ("layers", limits.LAYERS)):
        if (value := getattr(args, name)) is not None:
            check_whole(f"--{name}", value, most)
    if args.minutes is not None:
        check_number("--minutes", args.minutes, 600)
    if gpus.inside():
        return bench_together.take_part(args, partial(Bench, args), together(args))
    if args.gpus is not None:
        bench_together.check(args)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(args, Path(folder))
        check_size(bench.width, bench.height, bench.open(Case("auto")).config.spatial_multiple)
        return show(bench, args)


def together(args: argparse.Namespace) -> list[Case]:
    """What several GPUs measure: nothing is compiled, and all weights are on each."""
    return [Case(name, "none", "off") for name in args.weight_dtype or ["bf16"]]


def show(bench: Bench, args: argparse.Namespace) -> int:
    """The head, then row after row as they are measured, then what was counted; the exit code."""
    what = "a model of 16 million parameters, the VAE a twelfth as wide" if bench.small else "the published sizes"
    if args.layers:
        what += f", {args.layers} of its blocks"
    print(f"\n{bench.speed.machine(bench.device)}: {what}, {bench.width}x{bench.height}, random weights.")
    print(f"Seconds of a step of each stage, of decoding, of a chunk of {STEPS} steps a stage.{hint(bench.small)}\n")
    print(f"{HEAD}\n|{'---|' * HEAD.count(' | ')}---|", flush=True)
    first, longest, left = None, 0.0, []
    for case in bench.cases(args.weight_dtype):
        then = time.monotonic()
        if first is not None and then + longest > bench.until:
            left.append(f"{case.weight_dtype} (offload {case.offload}, compile {case.compile})")
            continue
        print(bench.measure(case), flush=True)
        first, longest = first or case, max(longest, time.monotonic() - then)
    if first is None:
        return 0
    code = 0 if args.gpus in (None, 1) else gpus.start(args.line, args.gpus)
    rival = None if args.no_diffusers else beside(bench, first.weight_dtype)
    print(*filter(None, (rival, found := bench.bound(first.weight_dtype))), sep="\n")
    if found is not None:
        print(f"\nbound: counted {bench.counted} a chunk, uncompiled; measured here {bench.ceilings}.")
    if bench.zeros:
        print("Weights in host memory stayed zero: it has no room for others.")
    if left:
        print(f"Left out for time (--minutes): {', '.join(left)}.")
    return code


def hint(small: bool) -> str:
    """What a CPU's figures are good for."""
    return "\nReduced for a CPU; --full takes the published sizes." if small else ""


def beside(bench: Bench, name: str) -> Row | None:
    """diffusers' transformer and VAE on the same device, number format and sizes; None where it is not there."""
    if bench.library != "torch" or name not in ("fp32", "bf16", "fp16") or time.monotonic() > bench.until:
        return None
    from ..backends.torch import rival

    config = bench.open(Case(name)).config
    try:
        stages, decode, peak = rival.measure(config, bench.width, bench.height, name, bench.device)
    except rival.MISSING as error:
        print(f"diffusers was not measured: {error}", file=sys.stderr)
        return None
    return Row(f"diffusers {rival.version()}, {name}", "none", "no", stages, decode, peak)


def add_options(sub: argparse.ArgumentParser) -> None:
    """Its options."""
    sub.add_argument("--backend", choices=BACKENDS, default="auto", help="what computes (default: %(default)s)")
    sub.add_argument(
        "--weight-dtype",
        action="append",
        default=[],
        choices=WEIGHT_DTYPES,
        help="number format to measure, once or more (default: those to compare)",
    )
    sub.add_argument("--width", type=int, help="pixels (default: 640; 320 on a CPU)")
    sub.add_argument("--height", type=int, help="pixels (default: 384; 192 on a CPU)")
    sub.add_argument("--layers", type=int, metavar="N", help="so many of the transformer's 40 blocks only")
    sub.add_argument("--full", action="store_true", help="the published sizes on a CPU too")
    sub.add_argument("--minutes", type=float, metavar="N", help="begin no row after that (default: 10; 2 on a CPU)")
    sub.add_argument("--no-diffusers", action="store_true", help="do not measure diffusers where it is installed")
    sub.add_argument("--gpus", type=int, metavar="N", help="also one video on so many GPUs of this machine")
    sub.add_argument("--threads", type=int, metavar="N", help="CPU threads to compute with (default: torch's choice)")
