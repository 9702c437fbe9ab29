"""What lies between the products, in as few passes over memory as the device allows.

Three ways to the same numbers, chosen here and nowhere else:
- a CPU without gradients goes a few hundred tokens at a time, so that what lies between two passes stays in the cache;
- a GPU without gradients runs a Triton kernel of one pass, where Triton is there and the kernel has agreed with the
  plain way on that device (triton_ops.py);
- all else is plain torch, which a compiler fuses for itself, with gradients where they are wanted.
`mods` are of layers.py's Modulation, one for every stream.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from . import triton_ops
from .kernels import in_rows, on_cpu
from .plain import inverse_rms, modulate, spare, turned


def split(x: Tensor, streams: list[Tensor]) -> tuple[Tensor, ...]:
    """x [b n d] of all tokens -> every stream's part of it."""
    return x.split([stream.shape[1] for stream in streams], dim=1)


def modulated_norm(streams: list[Tensor], mods: list, eps: float, dtype: torch.dtype) -> Tensor:
    """LayerNorm of every stream with its own scale and shift, joined: [b n d] in `dtype`."""
    return _norm(streams, [(mod.scale, mod.shift) for mod in mods], eps, dtype)


def norm(x: Tensor, layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """A LayerNorm of x [b n d], or what stands in its place, in `dtype`."""
    if type(layer) is not nn.LayerNorm:
        return layer(x).to(dtype)
    return _norm([x], [(layer.weight[None, None], layer.bias[None, None])], layer.eps, dtype)


def _norm(streams: list[Tensor], mods: list[tuple[Tensor, Tensor]], eps: float, dtype: torch.dtype) -> Tensor:
    first = streams[0]
    by_kernel = triton_ops.usable("norm", first, dtype)
    if not by_kernel and not on_cpu(first):
        out = [modulate(x, *mod, eps).to(dtype) for x, mod in zip(streams, mods, strict=True)]
        return torch.cat(out, dim=1) if len(out) > 1 else out[0]
    out = first.new_empty(len(first), sum(x.shape[1] for x in streams), first.shape[-1], dtype=dtype)
    for x, y, mod in zip(streams, split(out, streams), mods, strict=True):
        if by_kernel:
            triton_ops.norm(x, *mod, y, eps)
            continue
        for rows in in_rows(x.shape[1]):
            y[:, rows] = modulate(x[:, rows], *mod, eps)
    return out


def gated_add(streams: list[Tensor], update: Tensor, mods: list) -> list[Tensor]:
    """stream + gate * update [b n d], for every stream its part of the update. Without gradients in place."""
    by_kernel = triton_ops.usable("add", streams[0], update.dtype)
    return [_add(x, y, mod.gate, by_kernel) for x, y, mod in zip(streams, split(update, streams), mods, strict=True)]


def add(x: Tensor, update: Tensor) -> Tensor:
    """x + update [b n d]. Without gradients in place."""
    return _add(x, update, None, triton_ops.usable("add", x, update.dtype))


def _add(x: Tensor, update: Tensor, gate: Tensor | None, by_kernel: bool) -> Tensor:
    if by_kernel:
        triton_ops.add(x, update, gate)
        return x
    if on_cpu(x):
        for rows in in_rows(x.shape[1]):
            part = x[:, rows]
            part.add_(update[:, rows]) if gate is None else part.addcmul_(update[:, rows], gate)
        return x
    return torch.add(x, update, out=spare(x)) if gate is None else torch.addcmul(x, update, gate, out=spare(x))


def turn(x: Tensor, gain: Tensor, rotations: Tensor, *, heads: int, eps: float) -> list[Tensor]:
    """Queries or keys x [b n m d], normed over all heads and rotated: m of [b h n d].

    gain [m d]; rotations [n d/2 2]: cosine and sine per pair of a head's channels.
    """
    if triton_ops.usable("turn", x, x.dtype):
        return [part.transpose(1, 2) for part in triton_ops.turn(x, gain, rotations, heads, eps)]
    if not on_cpu(x):
        return list(rearrange(turned(x, gain, rotations, heads, eps).to(x.dtype), "b n m h d -> m b h n d"))
    b, n, m, d = x.shape
    out = x.new_empty(m, b, heads, n, d // heads)
    for rows in in_rows(n):
        part = turned(x[:, rows].float(), gain, rotations[rows], heads, eps)
        out[:, :, :, rows] = rearrange(part, "b n m h d -> m b h n d")
    return list(out)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Of x [b n d], in float32 inside, over all heads together; the type of x comes back."""
    if triton_ops.usable("turn", x, x.dtype):
        return triton_ops.turn(x[:, :, None], gain[None], None, 1, eps)[0, :, :, 0]
    if not on_cpu(x):
        return (x * inverse_rms(x, eps) * gain).to(x.dtype)
    out = torch.empty_like(x)
    for rows in in_rows(x.shape[1]):
        part = x[:, rows].float()
        out[:, rows] = part * inverse_rms(part, eps) * gain
    return out
