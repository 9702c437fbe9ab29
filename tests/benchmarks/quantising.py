"""How quick quantising is: ours, whole weights at once as it was until 0.2, the gguf package and comfy_kitchen.

python tests/benchmarks/quantising.py
python tests/benchmarks/quantising.py --rows 13824 --repeats 9 --threads 1

All get the same Gaussian weight in turn, and medians are compared. Peak memory is beside the weight, in a process of
its own for each. A package that is not there is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from timing import peak_mib

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[3])]
KINDS = ("fp8_e4m3fn", "int8", "int4")
GGUF = ("Q8_0", "Q4_0")
KITCHEN = {"fp8": "TensorCoreFP8Layout", "int8": "TensorWiseINT8Layout", "nvfp4": "TensorCoreNVFP4Layout"}
NAME = "blocks.0.ffn.net.2.weight"


def gaussian(rows: int, columns: int) -> torch.Tensor:
    return (0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))).bfloat16()


def quantisers() -> dict[str, tuple]:
    """Name -> what makes a weight's parts, and what makes a float32 weight of these."""
    from helios_video.helios_core.backends.torch.quant import dequantise
    from helios_video.helios_core.backends.torch.quantising import quantise
    from helios_video.helios_core.checkpoint.precision import group_size
    from support import plain_quant

    def back(parts):
        return dequantise(*[*parts, None][:3], torch.float32)

    found = {}
    for kind in KINDS:
        found[f"{kind}, before"] = (lambda w, k=kind: plain_quant.quantise(w, k, group_size(k, w.shape[1])), back)
        found[f"{kind}, ours"] = (lambda w, k=kind: list(quantise(NAME, w, k).values()), back)
    return found | of_gguf() | of_kitchen()


def of_gguf() -> dict[str, tuple]:
    try:
        import gguf
    except ImportError:
        return {}
    kinds = {name: gguf.GGMLQuantizationType[name] for name in GGUF}
    return {
        f"{name}, gguf": (
            lambda w, k=kind: gguf.quantize(w.float().numpy(), k),
            lambda parts, k=kind: torch.from_numpy(gguf.dequantize(parts, k)),
        )
        for name, kind in kinds.items()
    }


def of_kitchen() -> dict[str, tuple]:
    try:
        from comfy_kitchen.tensor import QuantizedTensor
    except ImportError:
        return {}
    return {
        f"{name}, comfy_kitchen": (
            lambda w, k=layout: QuantizedTensor.from_float(w, k),
            lambda parts: parts.dequantize().float(),
        )
        for name, layout in KITCHEN.items()
    }


def measure(weight: torch.Tensor, repeats: int) -> None:
    found = quantisers()
    seconds = {name: [] for name in found}
    for _ in range(repeats):
        for name, (make, _) in found.items():
            start = time.perf_counter()
            make(weight)
            seconds[name].append(time.perf_counter() - start)
    wanted, before = weight.float(), 0.0
    print(f"{'':24}{'M weights/s':>12}{'of before':>12}{'error':>10}{'MiB beside':>12}")
    for name, (make, back) in found.items():
        took = median(seconds[name])
        before = took if name.endswith("before") else before
        error = ((back(make(weight)) - wanted).norm() / wanted.norm()).item()
        times = f"{before / took:12.1f}" if name.endswith("ours") else f"{'':12}"
        print(f"{name:24}{weight.numel() / took / 1e6:12.0f}{times}{error:10.5f}{peak(name, weight):12.0f}", flush=True)


def peak(name: str, weight: torch.Tensor) -> float:
    """MiB that quantising takes beside the weight, with what it makes, in a fresh process."""
    command = [sys.executable, str(HERE), "--probe", name, "--rows", str(len(weight)), "--columns"]
    words = subprocess.run([*command, str(weight.shape[1])], check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(words.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5120)
    parser.add_argument("--columns", type=int, default=5120)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    weight = gaussian(args.rows, args.columns)
    with torch.no_grad():
        if args.probe:
            make, _ = quantisers()[args.probe]
            make(weight[:64])  # what the first call alone takes
            before, most = peak_mib(lambda: make(weight))
            print(most - before)
        else:
            measure(weight, args.repeats)


if __name__ == "__main__":
    main()
