"""What MLX does on this machine: seconds per stage, tokens per second and peak memory, as a table to paste.

    python tests/benchmarks/mac.py                                                 helios-tiny
    python tests/benchmarks/mac.py --model Helios-Distilled --weight-dtype int4    a checkpoint that is there
    python tests/benchmarks/mac.py --layers 2 --width 640 --height 384             2 of the 14B model's 40 blocks
    python tests/benchmarks/mac.py --layers 2 --heads 2 --ffn 256 --base-dim 8     the same, of a size for a CPU
    python tests/benchmarks/mac.py --parity                                        helios-tiny beside torch on the CPU

With --layers the weights are random, bfloat16 or quantised (the VAE's float32), and nothing is downloaded. The last of
the chunks is measured, so that compiling and a short history do not count. Torch is needed for --parity only. The
tokens counted are those that pass the transformer, the history's included. Peak memory is MLX's own count, per row.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from helios_video.helios_core import load
from helios_video.helios_core.backends.mlx.load import find_device, prepare
from helios_video.helios_core.backends.mlx.transformer import HeliosTransformer
from helios_video.helios_core.backends.mlx.vae import WanVAE
from helios_video.helios_core.backends.mlx.weights import quantise_model
from helios_video.helios_core.checkpoint.folders import find_checkpoint
from helios_video.helios_core.checkpoint.open import Checkpoint
from helios_video.helios_core.checkpoint.precision import KINDS, WEIGHT_DTYPES, is_float32
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from helios_video.helios_core.devices import Choices, Host, Parts
from helios_video.helios_core.pipeline import Helios
from mlx.utils import tree_map_with_path

PROMPT = "a red circle moves to the right on a blue background"
HEAD = "| what | size | runs | seconds | tokens/s | peak GiB |\n|---|---|---|---|---|---|"


class Row(NamedTuple):
    """One line of the table; None where a number means nothing."""

    what: str
    size: str
    runs: int
    seconds: float
    tokens: float | None = None  # per second
    peak: float | None = None  # GiB

    def __str__(self):
        numbers = ["" if x is None else f"{x:.0f}" if x >= 1000 else f"{x:.3g}" for x in self[3:]]
        return f"| {' | '.join([self.what, self.size, str(self.runs), *numbers])} |"


def timed(run) -> tuple[object, float, float]:
    """What it returned, seconds, and MLX's peak GiB meanwhile."""
    mx.reset_peak_memory()
    start = time.perf_counter()
    out = run()
    return out, time.perf_counter() - start, mx.get_peak_memory() / 2**30


def machine() -> str:
    """Chip, memory, system, MLX's version and what it computes on."""
    chip = platform.machine()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        chip = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
    memory = mx.device_info().get("memory_size", 0)
    system = f"{platform.system()} {platform.mac_ver()[0] or platform.release()}"
    kind = "Metal" if mx.metal.is_available() else str(mx.default_device())
    words = [chip, f"{memory / 2**30:.0f} GiB" if memory else "", system, f"Python {platform.python_version()}"]
    return ", ".join([word for word in words if word] + [f"mlx {mx.__version__} on {kind}"])


class Held(Parts):
    """Parts that are there without files: nothing is estimated of them."""

    def ready(self, name, *size, **more):
        return getattr(self, name)


def random_model(args) -> Helios:
    """A pipeline of random weights: the published sizes but for those that are given."""
    transformer = TransformerConfig(num_attention_heads=args.heads, ffn_dim=args.ffn, num_layers=args.layers)
    config = ModelConfig(transformer=transformer, vae=VAEConfig(base_dim=args.base_dim))
    checkpoint = Checkpoint(Path("random"), config, {})
    helios = Helios(checkpoint, Held(checkpoint, "mlx", Choices(), Host()), None)
    model = HeliosTransformer(transformer)
    model.update(
        tree_map_with_path(lambda name, x: x if is_float32(name) else x.astype(mx.bfloat16), model.parameters())
    )
    if args.weight_dtype in KINDS:
        quantise_model(model, args.weight_dtype)
    helios.parts.loaded.networks |= {"transformer": prepare(model, find_device()), "vae": WanVAE(config.vae)}
    mx.eval(model.parameters(), helios.parts.vae.parameters())
    return helios


def sample(helios: Helios, text, args) -> tuple[list[Row], object]:
    """Chunks one after the other: a row per stage of the last one, and its latent."""
    history = helios.history(args.width, args.height)
    for _ in range(args.chunks):
        past, laps = helios.parts.transformer.history_context(history.parts(9)).tokens.shape[1], []
        steps = helios.sample(history, text, seed=0, steps=args.steps, solver="dmd", cfg=1, boost_first_chunk=False)
        for _ in range(sum(args.steps)):
            step, *taken = timed(lambda steps=steps: next(steps))
            laps.append(((step.stage, *step.latent.shape[2:]), *taken))
        history = history.append(step.latent)
    rows = []
    for (stage, t, h, w), group in groupby(laps, lambda lap: lap[0]):
        _, seconds, peaks = zip(*group)
        tokens = len(seconds) * (past + t * h * w // 4)
        speed = tokens / sum(seconds)
        rows.append(Row(f"stage {stage + 1}", f"{t}x{h}x{w}", len(seconds), sum(seconds), speed, max(peaks)))
    rows.append(Row("chunk", f"{args.width}x{args.height}", len(laps), sum(row.seconds for row in rows)))
    return rows, step.latent


def measure(helios: Helios, args) -> list[Row]:
    rows = []
    if args.layers:
        text = np.random.default_rng(0).standard_normal((1, 512, helios.config.transformer.text_dim), dtype=np.float32)
    else:
        text, seconds, peak = timed(lambda: helios.text(PROMPT))
        rows.append(Row("text, with loading", "512", 1, seconds, None, peak))
    stages, latent = sample(helios, text, args)
    helios.decode(latent[:, :, :1])  # loads
    frames, seconds, peak = timed(lambda: helios.decode(latent))
    return [*rows, *stages, Row("decode", "x".join(map(str, frames.shape[:3])), 1, seconds, None, peak)]


def error(ours, theirs) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def parity(args) -> None:
    """helios-tiny on MLX and on torch's CPU: relative errors of the text and of each chunk from the same text.

    The text encoder computes in the half precision that it is stored in, all else in float32.
    """
    models = [load("helios-tiny", backend=name, weight_dtype="fp32", cache_folder=None) for name in ("mlx", "torch")]
    texts = [[np.asarray(model.text(prompt).padded) for prompt in (PROMPT, "")] for model in models]
    print("\nMLX beside torch, helios-tiny, relative errors:\n\n| what | error |\n|---|---|")
    print(f"| text | {error(texts[0][0], texts[1][0]):.1e} |", flush=True)
    histories = [model.history(args.width, args.height) for model in models]
    for chunk in range(args.chunks):
        latents = [run_chunk(*pair, *texts[1]) for pair in zip(models, histories)]
        print(f"| chunk {chunk + 1} | {error(*map(np.asarray, latents)):.1e} |", flush=True)
        histories = [history.append(latent) for history, latent in zip(histories, latents)]
    a, b = (model.decode(latent).astype(float) for model, latent in zip(models, latents))
    squared = np.mean((a - b) ** 2)
    print("| frames of the last chunk |", f"{10 * np.log10(255**2 / squared):.1f} dB |" if squared else "none |")


def run_chunk(model: Helios, history, text, negative):
    *_, last = model.sample(history, text, seed=0, negative=negative)
    return last.latent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = dict(layers=0, heads=40, ffn=13824, base_dim=96, width=64, height=64, chunks=2)
    for name, value in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--steps", type=int, nargs=3, default=(2, 2, 2))
    parser.add_argument("--model", default="helios-tiny", help="a checkpoint's name, folder or file")
    parser.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, default="auto")
    parser.add_argument("--parity", action="store_true", help="compare with torch instead of measuring")
    args = parser.parse_args()
    print(machine())
    if args.parity:
        parity(args)
        return
    name = f"{args.layers} blocks of {args.heads} heads, random weights" if args.layers else args.model
    if args.layers:
        helios = random_model(args)
    else:
        helios = load(find_checkpoint(args.model), backend="mlx", weight_dtype=args.weight_dtype, cache_folder=None)
    title = f"{name}, weight dtype {args.weight_dtype}, the last of {args.chunks} chunks"
    print(f"\n{title}\n", HEAD, *measure(helios, args), sep="\n")


if __name__ == "__main__":
    main()
