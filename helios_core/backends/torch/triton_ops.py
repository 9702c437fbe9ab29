"""The Triton kernels as operations of torch, and whether they may be used.

They are tried before they are trusted: `usable` has a kernel compute a few rows of the width, type and device in
question beside plain torch. One that fails or differs is not used in that case, which is said once.
HELIOS_TRITON=off keeps all of them out.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from subprocess import SubprocessError

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
LIBRARY = torch.library.Library("helios", "FRAGMENT")
DEVICES = ("cuda",)  # where kernels run; in tests a CPU, which Triton's interpreter is
COMPILED = ("turn", "linear_gelu")
LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}  # relative error against plain torch

# What Triton, a C compiler and a driver raise where something is missing or does not fit; nothing depends on it.
FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError)
FAILURES += (RuntimeError, SubprocessError, SyntaxError, TypeError, ValueError)


def torch_op(schema: str, fake=lambda *_: None):
    """Makes a function that starts a kernel an operation of torch, which tensors without data can run through.

    fake: what it returns, without computing it.
    """

    def made(f):
        if not hasattr(torch.ops.helios, f.__name__):  # as by another copy of the pack in this process
            LIBRARY.define(schema)
            for key in ("CUDA", "CPU"):  # a CPU has them in Triton's interpreter, for tests
                LIBRARY.impl(f.__name__, f, key)
            torch.library.register_fake(f"helios::{f.__name__}", fake, lib=LIBRARY)
        return getattr(torch.ops.helios, f.__name__)

    return made


def usable(name: str, x: Tensor, dtype: torch.dtype, width: int = 0) -> bool:
    """Whether the kernel of that name may compute on x [... d], with `dtype` as what it reads or writes besides.

    width: of the rows, where they are still to be laid out.

    On CUDA, in inference. A compiler fuses for itself, and is given only what moves less than its own: COMPILED.
    """
    if x.device.type not in DEVICES or torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() and name not in COMPILED:
        return False
    fits = width or (x.stride(-1) == 1 and x.shape[-1] % 2 == 0)
    return fits and {x.dtype, dtype} <= set(LIMITS) and trusted(name, x.device, dtype, width or x.shape[-1])


@torch.compiler.assume_constant_result
def trusted(name: str, device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether a kernel agrees with plain torch there."""
    return tried(name, device, dtype, width)


@cache
def tried(name: str, device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """The same; says so where it does not."""
    if os.environ.get("HELIOS_TRITON", "") == "off" or find_spec("triton") is None:
        return False
    from triton.errors import TritonError

    from .triton_trial import error

    try:
        found = error(name, device, dtype, width)
    except torch.cuda.OutOfMemoryError:
        raise
    except (TritonError, *FAILURES) as problem:
        LOG.warning("the Triton kernel %s is not used: %s: %s", name, type(problem).__name__, problem)
        return False
    if not found < LIMITS[dtype]:
        LOG.warning("the Triton kernel %s is not used: it differs from plain torch by %.2g", name, found)
        return False
    return True


def on_device(x: Tensor):
    """Makes the device of x the current one, on which kernels start."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def empty_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `linear_gelu` returns, uninitialised."""
    return x.new_empty(*x.shape[:-1], len(weight))


@torch_op("linear_gelu(Tensor x, Tensor weight, Tensor bias) -> Tensor", empty_product)
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (tanh form) of x [... i] times weight [o i] plus bias, in the product's last pass, which cuBLASLt has."""
    y = torch._addmm_activation(bias, x.flatten(0, -2), weight.T, use_gelu=True)
    return y.unflatten(0, x.shape[:-1])


@torch_op("norm(Tensor x, Tensor scale, Tensor shift, Tensor(a!) out, float eps) -> ()")
def norm(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor, eps: float) -> None:
    """LayerNorm of x [b n d] times scale plus shift, each [1 or b, 1, d] -> out [b n d]."""
    from . import triton_kernels

    with on_device(x):
        triton_kernels.norm(x, scale, shift, out, eps)


@torch_op("add(Tensor(a!) x, Tensor update, Tensor? gate) -> ()")
def add(x: Tensor, update: Tensor, gate: Tensor | None) -> None:
    """x [b n d] += update [b n d], times gate [1 or b, 1, d] if there is one."""
    from . import triton_kernels

    with on_device(x):
        triton_kernels.add(x, update, gate)


def empty_turned(x: Tensor, gain: Tensor, rotations: Tensor | None, heads: int, eps: float) -> Tensor:
    """What `turn` returns, uninitialised."""
    b, n, m, d = x.shape
    return x.new_empty(m, b, n, heads, d // heads)


@torch_op("turn(Tensor x, Tensor gain, Tensor? rotations, int heads, float eps) -> Tensor", empty_turned)
def turn(x: Tensor, gain: Tensor, rotations: Tensor | None, heads: int, eps: float) -> Tensor:
    """x [b n m d], normed over all heads and turned by rotations [n d/2 2] -> [m b n h d]; gain [m d]."""
    from . import triton_kernels

    out = empty_turned(x, gain, rotations, heads, eps)
    with on_device(x):
        triton_kernels.turn(x, gain.contiguous(), rotations, out.flatten(-2), heads, eps)
    return out


@torch_op("activate(Tensor x, Tensor gamma, Tensor(a!) out) -> ()")
def activate(x: Tensor, gamma: Tensor, out: Tensor) -> None:
    """SiLU of the RMS norm of x [b t h w c] times gamma [c] -> out; frames of both without gaps."""
    from . import triton_kernels

    with on_device(x):
        triton_kernels.activate(x, gamma, out)
