"""What the benchmark scripts share: interleaved timing of two functions, and a process's peak memory."""

import ctypes
import gc
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRODUCT = 1536  # rows and columns of the ceiling's matrices


def timed(run) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def race(ours, theirs, dtype: torch.dtype, repeats: int, gflop: float) -> dict[str, float]:
    """Medians of interleaved runs, the median of the ratios of neighbours, and shares of the machine's ceiling.

    The ceiling is the best of five products of large matrices between the runs; gflop is the reference's count.
    """
    square = torch.randn(PRODUCT, PRODUCT).to(dtype)
    wanted, found = theirs(), ours()
    rounds = []
    for _ in range(repeats):
        seconds = [timed(run)[0] for run in (ours, theirs)]
        product = min(timed(lambda: square @ square)[0] for _ in range(5))
        rounds.append((*seconds, seconds[1] / seconds[0], 2e-9 * PRODUCT**3 / product))
    t_ours, t_theirs, ratio, ceiling = map(median, zip(*rounds))
    return {
        "ours s": t_ours,
        "diffusers s": t_theirs,
        "times as fast": ratio,
        "error": ((found - wanted).float().norm() / wanted.float().norm()).item(),
        "ceiling GFLOP/s": ceiling,
        "ours, of ceiling": gflop / t_ours / ceiling,
        "diffusers, of ceiling": gflop / t_theirs / ceiling,
    }


def peak_mib(run) -> tuple[float, float]:
    """(resident MiB before run, the highest while it ran) of this process; what building left is given back first."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark; Linux only
    before = resident("VmRSS")
    run()
    return before, resident("VmHWM")


def resident(key: str) -> float:
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def race_memory(script: str, *options: str) -> dict[str, float]:
    """Peaks of two fresh processes of the script: each gets --probe and prints what peak_mib returned."""
    found = {}
    for which in ("ours", "diffusers"):
        command = [sys.executable, script, "--probe", which, *options]
        words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        found |= {f"{which} MiB before": float(words[-2]), f"{which} MiB": float(words[-1])}
    return found | {"peak, of diffusers'": found["ours MiB"] / found["diffusers MiB"]}


def show(title: str, found: dict[str, float]) -> None:
    print(title)
    for key, value in found.items():
        print(f"  {key:24}{value:10.3g}" if value < 1 else f"  {key:24}{value:10.2f}", flush=True)
