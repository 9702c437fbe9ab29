"""Weights of linear layers made into the forms of quant.py, a few rows at a time.

What a pass over the rows of a block writes stays in the processor's cache for the next one, in memory that one block
after another gets: on a CPU the time goes into neither reading nor asking for memory. The numbers do not depend on how
the rows are cut. Measured by tests/benchmarks/quantising.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch
from torch import Tensor, nn

from ...checkpoint import group_size, split_kind

FP8_MAX = 448.0
WEIGHT, SCALE, ZERO = "weight", "scale_weight", "zero_weight"
REFINEMENTS = 3  # least-squares fits of scale and zero to the codes; each lowers the error, more hardly do
AT_ONCE = 1 << 18  # weights of a block, for each thread; smaller ones cost more calls than the cache gives back
MOST_THREADS = 8  # more wait for each other: Python runs in one at a time
ON_DEVICE = 1 << 30  # the same on a device that is no CPU: a whole weight


def quantise(name: str, tensor: Tensor, kind: str) -> dict[str, Tensor]:
    """A weight [o i] as stored: {name: codes, ...scale_weight: ..., ...zero_weight: ...}. Same input, same output.

    name: ends in ".weight". kind: one of precision.KINDS. ValueError for a kind that is none of them, for an already
    quantised weight, and for NaN or infinity.
    """
    form, _ = split_kind(kind)
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"{name} is quantised already ({tensor.dtype}); quantise the original checkpoint instead")
    layer = name.removesuffix(WEIGHT)
    with torch.no_grad():
        parts = ENCODERS[form](name, tensor, group_size(kind, tensor.shape[1]))
    return {layer + suffix: part for suffix, part in parts.items()}


def _fp8(name: str, w: Tensor, _: int) -> dict[str, Tensor]:
    codes, scale = _empty(w, torch.float8_e4m3fn), w.new_empty(len(w), 1, dtype=torch.float32)

    def fill(rows: slice, x: Tensor, y: Tensor) -> None:
        factor = _positive(_most(name, x, y) / FP8_MAX)
        scale[rows] = factor[..., 0]
        codes[rows] = torch.div(x, factor, out=y).flatten(1)  # at most FP8_MAX and a rounding, which fp8 takes back

    by_blocks(w, w.shape[1], 2, fill)
    return {WEIGHT: codes, SCALE: scale}


def _int8(name: str, w: Tensor, columns: int) -> dict[str, Tensor]:
    codes, scale = _empty(w, torch.int8), w.new_empty(len(w), w.shape[1] // columns, dtype=torch.bfloat16)

    def fill(rows: slice, x: Tensor, y: Tensor) -> None:
        factor = _positive(_most(name, x, y) / 127).bfloat16()
        scale[rows] = factor[..., 0]
        codes[rows] = torch.div(x, factor.float(), out=y).round_().clamp_(-128, 127).flatten(1)

    by_blocks(w, columns, 2, fill)
    return {WEIGHT: codes, SCALE: scale}


def _int4(name: str, w: Tensor, columns: int) -> dict[str, Tensor]:
    if w.shape[1] % 2:
        raise ValueError(f"int4 packs columns in pairs; a weight of shape {tuple(w.shape)} has an odd number of them")
    half, shape = w.shape[1] // 2, (len(w), w.shape[1] // columns)
    packed = w.new_empty(len(w), half, dtype=torch.uint8)
    scales, zeros = (w.new_empty(shape, dtype=torch.bfloat16) for _ in range(2))

    def fill(rows: slice, x: Tensor, y: Tensor, z: Tensor) -> None:
        low, high = (0.95 * limit(x, dim=2, keepdim=True) for limit in (torch.amin, torch.amax))
        _check_finite(name, high - low)
        scale, zero = _refined(x, (high - low) / 15, low, (y, z))
        scales[rows], zeros[rows] = scale[..., 0], zero[..., 0]
        codes = _codes(x, scale, zero, y).to(torch.int8).flatten(1).view(torch.uint8)
        packed[rows] = codes[:, half:].bitwise_left_shift_(4).bitwise_or_(codes[:, :half])

    by_blocks(w, columns, 3, fill)
    return {WEIGHT: packed, SCALE: scales, ZERO: zeros}


ENCODERS = {"fp8_e4m3fn": _fp8, "int8": _int8, "int4": _int4}


def _empty(w: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(w.shape, dtype=dtype, device=w.device)


def by_blocks(w: Tensor, columns: int, count: int, fill: Callable) -> None:
    """Calls `fill` for all rows of a weight, some at a time: with them as a slice, what they hold in float32
    [n g columns], and count - 1 tensors like that to write into, whose memory the next rows get."""
    cpu = w.device.type == "cpu"
    step = max(1, min(len(w), (AT_ONCE if cpu else ON_DEVICE) // w.shape[1]))
    left = iter([slice(start, min(start + step, len(w))) for start in range(0, len(w), step)])
    alone = not cpu or type(w) not in (Tensor, nn.Parameter)  # a traced tensor belongs to one thread
    workers = 1 if alone else min(MOST_THREADS, torch.get_num_threads(), -(-len(w) // step))
    inference = torch.is_inference_mode_enabled()

    def work(_) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            memory = torch.empty(count, step, w.shape[1] // columns, columns, device=w.device)
            for rows in left:
                wide, *others = memory[:, : rows.stop - rows.start]
                fill(rows, wide.copy_(w[rows].unflatten(1, (-1, columns))), *others)

    if workers == 1:
        return work(0)
    for _ in threads().map(work, range(workers)):
        pass


@cache
def threads() -> ThreadPoolExecutor:
    """Threads that compute each by itself. Torch's own wait for each other after every operation: beside other work,
    which takes a core from one of them, that makes these short ones many times slower."""
    count, ready = torch.get_num_threads(), Barrier(MOST_THREADS + 1)

    def alone() -> None:
        torch.get_num_threads()  # the first call would set it anew
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(MOST_THREADS, "quantising", alone)
    for _ in range(MOST_THREADS):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(count)  # of this thread, and of those to come
    return pool


def _most(name: str, x: Tensor, into: Tensor) -> Tensor:
    """The largest size in each group [n g 1]. ValueError for NaN or infinity."""
    found = torch.abs(x, out=into).amax(dim=2, keepdim=True)
    _check_finite(name, found)
    return found


def _check_finite(name: str, extremes: Tensor) -> None:
    if not bool(torch.isfinite(extremes).all()):
        raise ValueError(f"{name} holds NaN or infinity; the checkpoint is broken, download it again")


def _codes(groups: Tensor, scale: Tensor, zero: Tensor, into: Tensor) -> Tensor:
    return torch.sub(groups, zero, out=into).div_(scale).round_().clamp_(0, 15)


def _rounded(scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """As they are stored, so that the codes make up for it."""
    return _positive(scale).bfloat16().float(), zero.bfloat16().float()


def _positive(scale: Tensor) -> Tensor:
    """A group of equal numbers has no range; any factor serves it."""
    return torch.where(scale > 1e-30, scale, torch.ones_like(scale))


def _refined(groups: Tensor, scale: Tensor, zero: Tensor, spare: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The scale and zero of least squares for the codes that the last ones gave, a few times over, as they are stored;
    where all codes are one, the old scale."""
    mean = groups.mean(dim=2, keepdim=True)
    for _ in range(REFINEMENTS):
        codes = _codes(groups, *_rounded(scale, zero), spare[0])
        level = codes.mean(dim=2, keepdim=True)
        codes -= level
        spread = torch.square(codes, out=spare[1]).sum(dim=2, keepdim=True)
        codes *= torch.sub(groups, mean, out=spare[1])
        fitted = codes.sum(dim=2, keepdim=True) / spread.clamp_min(1e-6)
        scale = torch.where(spread > 1e-6, fitted, scale)
        zero = mean - scale * level
    return _rounded(scale, zero)
