"""Plain torch between the products: what gradients, compilers and devices without a way of their own compute, and what
Triton's kernels are held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

CACHED = 1 << 17  # numbers that stay in the cache between two passes over them


def spare(x: Tensor) -> Tensor | None:
    """x, for an operation to write its result into; None, so that it makes a new tensor, where gradients need x."""
    return None if torch.is_grad_enabled() or torch.compiler.is_compiling() else x


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """One over the root mean square of the last axis, which stays with size 1; float32 whatever x is."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (norm.square() / x.shape[-1] + eps).rsqrt()


def modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """LayerNorm of x [b n d] float32, times scale plus shift, each [1 or b, 1, d]."""
    if len(scale) == 1:
        return F.layer_norm(x, x.shape[-1:], scale[0, 0], shift[0, 0], eps)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], None, None, eps), scale)


def turned(x: Tensor, gain: Tensor, rotations: Tensor, heads: int, eps: float) -> Tensor:
    """Queries or keys x [b n m d], normed over all heads and rotated, as [b n m h d] float32; see `fused.turn`."""
    turns = rotations[:, None, None] * inverse_rms(x, eps)[..., None, None]
    return rotate(rearrange(x * gain, "b n m (h d) -> b n m h d", h=heads), turns)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Turns channel pairs of x [... d], float32, by cosines and sines that broadcast to [... d/2 2].

    Without gradients in place. A compiler, which has no complex numbers, is given real ones.
    """
    if torch.compiler.is_compiling():
        (a, b), (c, s) = (t.unbind(-1) for t in (x.unflatten(-1, (-1, 2)), rotations))
        return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2)
    pairs, turns = torch.view_as_complex(x.unflatten(-1, (-1, 2))), torch.view_as_complex(rotations)
    return torch.view_as_real(torch.mul(pairs, turns, out=spare(pairs))).flatten(-2)


def activate(x: Tensor, gamma: Tensor, out: Tensor) -> None:
    """SiLU of the RMS norm of x [b t h w c], into out; in 16 bits a few rows of pixels at a time, in float32."""
    if x.dtype == torch.float32:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norm.clamp_min_(1e-12).reciprocal_().mul_(x.shape[-1] ** 0.5)
        torch.mul(x, scale, out=out)
        F.silu(out.mul_(gamma.flatten()), inplace=True)
        return
    gain = gamma.flatten().float() * x.shape[-1] ** 0.5
    rows = max(1, CACHED // (x.shape[-2] * x.shape[-1]))
    for frame, into in zip(x.flatten(0, 1), (frame for clip in out for frame in clip), strict=True):
        for part, to in zip(frame.split(rows), into.split(rows), strict=True):
            y = part.float()
            norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
            to.copy_(F.silu(y.div_(norm.clamp_min_(1e-12)).mul_(gain), inplace=True))
