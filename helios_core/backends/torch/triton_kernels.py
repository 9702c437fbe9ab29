"""Triton kernels of one pass each: a norm with its scale and shift, a gated addition, queries and keys normed and
turned, the VAE's norm with SiLU. A program takes whole rows, which stay in registers; sums are float32.

Imported only where Triton is there (triton_ops.py). They have run in Triton's interpreter; on a GPU not yet.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 4096  # of a program of `activate`


@triton.jit
def norm_kernel(x, scale, shift, out, d, eps, x_batch, x_row, mod_batch, out_batch, out_row, BLOCK: tl.constexpr):
    """out = LayerNorm(x) * scale + shift, a row a program."""
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < d
    v = tl.load(x + batch * x_batch + row * x_row + i, mask=inside, other=0.0)
    centred = tl.where(inside, v - tl.sum(v, 0) / d, 0.0)
    unit = centred * tl.rsqrt(tl.sum(centred * centred, 0) / d + eps)
    a = tl.load(scale + batch * mod_batch + i, mask=inside, other=0.0)
    b = tl.load(shift + batch * mod_batch + i, mask=inside, other=0.0)
    tl.store(out + batch * out_batch + row * out_row + i, (unit * a + b).to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_kernel(x, update, gate, d, x_batch, x_row, u_batch, u_row, g_batch, GATED: tl.constexpr, BLOCK: tl.constexpr):
    """x += gate * update, a part of a row a program."""
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = i < d
    at = x + batch * x_batch + row * x_row + i
    u = tl.load(update + batch * u_batch + row * u_row + i, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        u *= tl.load(gate + batch * g_batch + i, mask=inside, other=0.0)
    tl.store(at, tl.load(at, mask=inside, other=0.0) + u, mask=inside)


@triton.jit
def turn_kernel(
    x, gain, rotations, out, pairs, half, eps, x_batch, x_row, x_part, o_batch, o_row, o_part,
    ROTATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = RMS norm of a row of x times its gain, pairs of channels turned; half: pairs of a head."""
    row, part, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    p = tl.arange(0, BLOCK)
    i = p[:, None] * 2 + tl.arange(0, 2)[None, :]
    inside = i < 2 * pairs
    v = tl.load(x + batch * x_batch + row * x_row + part * x_part + i, mask=inside, other=0.0).to(tl.float32)
    rms = tl.rsqrt(tl.sum(tl.sum(v * v, 1), 0) / (2 * pairs) + eps)
    v = v * rms * tl.load(gain + part * (2 * pairs) + i, mask=inside, other=0.0)
    if ROTATED:
        a, b = tl.split(v)
        c, s = tl.split(tl.load(rotations + row * (2 * half) + i % (2 * half), mask=inside, other=0.0))
        v = tl.join(a * c - b * s, a * s + b * c)
    tl.store(out + batch * o_batch + row * o_row + part * o_part + i, v.to(out.dtype.element_ty), mask=inside)


@triton.jit
def activate_kernel(x, gamma, out, pixels, c, root, x_batch, out_batch, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """out = SiLU(x / |x| * root * gamma) over the channels of ROWS pixels."""
    row, batch = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.program_id(1).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = (row < pixels)[:, None] & (i < c)[None, :]
    at = row[:, None] * c + i[None, :]
    v = tl.load(x + batch * x_batch + at, mask=inside, other=0.0).to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(v * v, 1)), 1e-12)
    y = v * (root / length)[:, None] * tl.load(gamma + i, mask=i < c, other=0.0).to(tl.float32)[None, :]
    tl.store(out + batch * out_batch + at, (y * tl.sigmoid(y)).to(out.dtype.element_ty), mask=inside)


def warps(block: int) -> int:
    """Of a program that holds so many numbers."""
    return min(max(block // 512, 1), 16)


def norm(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor, eps: float) -> None:
    """x [b n d], scale and shift [1 or b, 1, d] -> out [b n d]; the last axis of each without gaps."""
    (b, n, d), block = x.shape, triton.next_power_of_2(x.shape[-1])
    scale, shift = (t.expand(b, -1, -1) if len(t) == 1 else t.contiguous() for t in (scale, shift))
    shift = shift if shift.stride(0) == scale.stride(0) else shift.expand_as(scale).contiguous()
    strides = x.stride(0), x.stride(1), scale.stride(0), out.stride(0), out.stride(1)
    norm_kernel[n, b](x, scale, shift, out, d, eps, *strides, BLOCK=block, num_warps=warps(block))


def add(x: Tensor, update: Tensor, gate: Tensor | None) -> None:
    """x [b n d] += update [b n d], times gate [1 or b, 1, d] if there is one; the last axis of each without gaps."""
    (b, n, d), block = x.shape, min(triton.next_power_of_2(x.shape[-1]), 2048)
    step = 0 if gate is None or len(gate) == 1 else gate.stride(0)
    strides = x.stride(0), x.stride(1), update.stride(0), update.stride(1), step
    grid = n, b, triton.cdiv(d, block)
    add_kernel[grid](x, update, x if gate is None else gate, d, *strides, GATED=gate is not None, BLOCK=block)


def turn(x: Tensor, gain: Tensor, rotations: Tensor | None, out: Tensor, heads: int, eps: float) -> None:
    """x [b n m d], gain [m d], rotations [n d/2 2] -> out [m b n d], contiguous; the last axis of each without gaps."""
    (b, n, m, d), block = x.shape, triton.next_power_of_2(x.shape[-1] // 2)
    strides = x.stride(0), x.stride(1), x.stride(2), out.stride(1), out.stride(2), out.stride(0)
    table = gain if rotations is None else rotations
    turn_kernel[n, m, b](
        x, gain, table, out, d // 2, d // heads // 2, eps, *strides,
        ROTATED=rotations is not None, BLOCK=block, num_warps=warps(2 * block),
    )  # fmt: skip


def activate(x: Tensor, gamma: Tensor, out: Tensor) -> None:
    """x [b t h w c] -> out [b t h w c]; frames of each without gaps, gamma [c]."""
    (b, t, h, w, c), block = x.shape, triton.next_power_of_2(x.shape[-1])
    rows = max(1, NUMBERS // block)
    grid = triton.cdiv(t * h * w, rows), b
    activate_kernel[grid](x, gamma, out, t * h * w, c, c**0.5, x.stride(0), out.stride(0), ROWS=rows, BLOCK=block)
