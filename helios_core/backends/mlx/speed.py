"""What `helios bench speed` asks of MLX; torch's twin counts too, which needs torch."""

from __future__ import annotations

import time

import mlx.core as mx
from mlx.utils import tree_map

from .arrays import evaluate


def machine(device) -> str:
    """The chip and MLX."""
    name = mx.device_info().get("device_name", str(mx.default_device()))
    return f"{name}, MLX {mx.__version__} on {'Metal' if mx.metal.is_available() else 'the CPU'}"


def wait(device) -> None:
    """Until the device has done what it was given."""
    mx.synchronize()


def reset_peak(device) -> None:
    """The peak is what there is now."""
    mx.reset_peak_memory()


def peak(device) -> int | None:
    """Bytes at the highest since then."""
    return mx.get_peak_memory()


def compiled(network) -> bool:
    """Whether a transformer is compiled."""
    return network.compiled is not None


def randomise(network) -> bool:
    """Gives a network random weights of a size that keeps what passes through it; codes and their factors too."""

    def draw(x):
        if not mx.issubdtype(x.dtype, mx.floating):
            return mx.random.randint(0, 256, x.shape).astype(x.dtype)
        if x.ndim < 2:
            return mx.ones_like(x) if mx.issubdtype(x.dtype, mx.floating) else x
        return (mx.random.normal(x.shape) * (x.size / x.shape[0]) ** -0.5).astype(x.dtype)

    network.update(tree_map(draw, network.parameters()))
    evaluate(network.parameters())
    return True


def ceilings(device, dtype: str) -> tuple[float, float]:
    """FLOP/s of a product of large matrices, and bytes/s of a copy, the best of a few, measured."""
    side, count = 4096, 2**28
    x = mx.random.normal((side, side)).astype({"fp32": mx.float32, "bf16": mx.bfloat16, "fp16": mx.float16}[dtype])
    y = mx.zeros(count // 4, dtype=mx.float32)
    return 2 * side**3 / _best(lambda: x @ x), 2 * count / _best(lambda: y + 1)


def _best(run, times: int = 5) -> float:
    found = []
    for _ in range(times + 1):
        then = time.perf_counter()
        evaluate(run())
        found.append(time.perf_counter() - then)
    return min(found[1:])
