"""Each Triton kernel (helios:: operations of triton_ops.py) beside plain torch, on a few rows of random numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import plain

BATCH, TOKENS, HEAD = 2, 5, 128
EPS = 1e-6


@torch.inference_mode()
def error(name: str, device, dtype: torch.dtype, width: int) -> float:
    """Relative error of a kernel on rows of that width on that device."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    found, wanted = TRIALS[name](draw, dtype, width)
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def _norm(draw, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    x, scale, shift = draw(BATCH, TOKENS, width), draw(1, 1, width), draw(1, 1, width)
    found = torch.zeros_like(x, dtype=dtype)
    torch.ops.helios.norm(x, scale, shift, found, EPS)
    return found, plain.modulate(x, scale, shift, EPS)


def _add(draw, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    x, update, gate = draw(BATCH, TOKENS, width), draw(BATCH, TOKENS, width, dtype=dtype), draw(1, 1, width)
    wanted = x + update * gate + update
    torch.ops.helios.add(x, update, gate)
    torch.ops.helios.add(x, update, None)
    return x, wanted


def _turn(draw, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    heads = width // HEAD if width % HEAD == 0 else 1
    x, gain = draw(BATCH, TOKENS, 3, width, dtype=dtype)[:, :, :2], draw(2, width)
    rotations = draw(TOKENS, width // heads // 2, 2)
    still = torch.stack([torch.ones_like(rotations[..., 0]), torch.zeros_like(rotations[..., 0])], dim=-1)
    found = [torch.ops.helios.turn(x, gain, turns, heads, EPS) for turns in (rotations, None)]
    wanted = [plain.turned(x, gain, turns, heads, EPS) for turns in (rotations, still)]
    return torch.stack(found), rearrange(torch.stack(wanted), "k b n m h d -> k m b n h d")


def _activate(draw, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    x, gamma = draw(BATCH, 2, 3, 3, width, dtype=dtype), draw(width, dtype=dtype)
    found, wanted = (torch.zeros(BATCH, 4, 3, 3, width, device=x.device, dtype=dtype) for _ in range(2))
    torch.ops.helios.activate(x, gamma, found[:, 2:])
    plain.activate(x, gamma, wanted[:, 2:])
    return found, wanted


def _linear_gelu(draw, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    x, weight, bias = (
        draw(BATCH, TOKENS, width, dtype=dtype),
        draw(64, width, dtype=dtype) / width**0.5,
        draw(64, dtype=dtype),
    )
    found = torch.ops.helios.linear_gelu(x, weight, bias)
    return found, F.gelu(F.linear(x, weight, bias).float(), approximate="tanh")


TRIALS = {"norm": _norm, "add": _add, "turn": _turn, "linear_gelu": _linear_gelu, "activate": _activate}
