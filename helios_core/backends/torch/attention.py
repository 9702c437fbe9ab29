"""Attention by choice: which kernel computes it, from those that are installed and fit the device.

auto: the CPU's own ways on a CPU (kernels.py); cuDNN's kernel on Hopper and on data-centre Blackwell, and torch's own
choice where cuDNN fails; queries in parts on Apple's GPU, where torch holds all scores; torch's own choice elsewhere.

A prompt's padding is one key whose logit is raised by the logarithm of the rows it stands for. That is an additive
mask, which flash kernels have not. So here the softmax is split: flash over the other keys, which also gives the
logarithm of the sum of their exponentials, then the padding's key is mixed in by its share. Exact.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .preferred import Preferred

HALF = (torch.bfloat16, torch.float16)
SCORES = 2**28  # numbers that Apple's GPU may hold of logits at a time: 1 GiB in float32
SAGE_HEADS = (64, 96, 128)
Way = Callable[[Tensor, Tensor, Tensor], Tensor]  # of q [b h n d], k and v [b h m d]; returns [b h n d]


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own choice among its kernels."""
    return F.scaled_dot_product_attention(q, k, v)


def in_parts(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same over so many queries at a time that their logits are SCORES; each query's result is its own."""
    k, v = (x.expand(len(q), -1, -1, -1) for x in (k, v))
    rows = max(1, SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    mask = None if bias is None else bias.to(q.dtype)
    parts = [F.scaled_dot_product_attention(part, k, v, attn_mask=mask) for part in q.split(rows, dim=2)]
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def of_torch(name: str, **options) -> Way:
    """One of torch's kernels alone. options: set_priority, and then that one first, the others where it cannot."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    others = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH") if options else ()
    kernels_of_torch = [getattr(SDPBackend, n) for n in (name, *others)]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(kernels_of_torch, **options):
            return F.scaled_dot_product_attention(q, k, v)

    return run


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's flash attention."""
    return with_sums(q, k, v)[0]


def with_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's flash attention, and the logarithm of each query's sum of exponentials [b h n], float32."""
    on_cpu = q.device.type == "cpu"
    name = "_scaled_dot_product_flash_attention" + ("_for_cpu" if on_cpu else "")
    out, sums = getattr(torch.ops.aten, name)(q, k, v)[:2]
    return out, sums[..., : q.shape[2]]


def flash3() -> Way:
    """FlashAttention 3, of the package flash_attn_interface: tokens before heads."""
    from flash_attn_interface import flash_attn_func

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)))
        return (found[0] if isinstance(found, tuple) else found).transpose(1, 2)

    return run


def sage() -> Way:
    """SageAttention, of the package sageattention: queries and keys in int8, so near to the others, not equal."""
    from sageattention import sageattn

    return lambda q, k, v: sageattn(q, k, v, tensor_layout="HND", is_causal=False)


def flex() -> Way:
    """Torch's flex_attention, which must be compiled to be fast."""
    from torch.nn.attention.flex_attention import flex_attention

    made_fast = torch.compile
    compiled = made_fast(flex_attention, dynamic=True)
    return lambda q, k, v: (flex_attention if torch.compiler.is_compiling() else compiled)(q, k, v)


MAKE: dict[str, Callable[[], Way]] = {
    "sdpa": lambda: sdpa,
    "cudnn": lambda: of_torch("CUDNN_ATTENTION"),
    "flash": lambda: flash,
    "flash3": flash3,
    "sage": sage,
    "flex": flex,
    "math": lambda: of_torch("MATH"),
}


def with_padding(way: Way, split: bool) -> Callable:
    """A way that also takes a bias, as `kernels.attention` does, of zeros but for the last key. split: by flash and
    the sums of exponentials, while that works; else as a mask of torch's own choice."""
    padded = Preferred("attention to padding", [("flash", over_padding), ("a mask", masked)]) if split else masked

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        k, v = (x.expand(len(q), -1, -1, -1) for x in (k, v))  # a prompt for all of a batch; kernels do not repeat it
        if bias is None:
            return way(q, k, v)
        return (padded if k.shape[2] > 1 else masked)(q, k, v, bias)

    return run


def masked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Torch's own choice among the kernels that take a mask."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


def over_padding(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention whose last key has a bias of its own: that of the other keys, and by its share the last's."""
    out, sums = with_sums(q, k[:, :, :-1], v[:, :, :-1])
    logits = (q * k[:, :, -1:]).sum(-1, dtype=torch.float32) * q.shape[-1] ** -0.5 + bias[..., -1]
    share = torch.sigmoid(logits - sums)[..., None]
    return torch.lerp(out, v[:, :, -1:], share.to(out.dtype))


def find(name: str, device, dtype: torch.dtype, head_dim: int) -> Callable:
    """The function of that name, as `kernels.attention`; name: one of ways.ATTENTION.

    ValueError for what is not installed, or not for that device, type or head; it lists what there is.
    """
    device = torch.device(device)
    if name == "auto":
        return automatic(device, dtype, head_dim)
    if reason := absent(name, device, dtype, head_dim):
        raise ValueError(f"attention {name}: {reason}; there is auto, {', '.join(there(device, dtype, head_dim))}")
    if name == "sdpa" and device.type == "cpu":
        return kernels.attention
    return with_padding(MAKE[name](), splits(device, dtype, head_dim) and name not in ("sdpa", "math"))


def try_out(attention: Callable, device, dtype: torch.dtype, head_dim: int) -> None:
    """Has a GPU attend once, so that what fails there is given up before a compiler is given it."""
    if torch.device(device).type == "cuda":
        q = torch.zeros(1, 1, 256, head_dim, device=device, dtype=dtype)
        attention(q, q, q)
        attention(q, q, q, torch.zeros(1, 1, 1, 256, device=device))


def automatic(device: torch.device, dtype: torch.dtype, head_dim: int) -> Callable:
    """What auto is on a device."""
    if device.type == "mps":
        return in_parts
    if device.type != "cuda":
        return kernels.attention
    way: Way = sdpa
    if absent("cudnn", device, dtype, head_dim) is None and torch.cuda.get_device_capability(device)[0] in (9, 10):
        way = Preferred("attention", [("cudnn", of_torch("CUDNN_ATTENTION", set_priority=True)), ("sdpa", sdpa)])
    return with_padding(way, splits(device, dtype, head_dim))


def there(device, dtype: torch.dtype, head_dim: int) -> list[str]:
    """The names of what can be had there, auto aside."""
    return [name for name in MAKE if absent(name, torch.device(device), dtype, head_dim) is None]


def splits(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether torch's flash attention can be asked for the sums."""
    return head_dim % 8 == 0 and absent("flash", device, dtype, head_dim) is None


def gains_by_splitting(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether attention by another's choice is better off without a mask there."""
    return device.type == "cuda" and splits(device, dtype, head_dim)


def absent(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a way cannot be had there; None if it can."""
    if name in ("sdpa", "math") or (name == "flash" and device.type == "cpu"):
        return None
    package = {"flash3": "flash_attn_interface", "sage": "sageattention", "flex": "triton"}.get(name)
    if package is not None and find_spec(package) is None:
        return f"the package {package} is not installed"
    if device.type != "cuda" or torch.version.hip is not None:
        return "it needs a GPU of NVIDIA's"
    least = {"flash3": (9, 0)}.get(name, (8, 0))
    if (found := torch.cuda.get_device_capability(device)) < least:
        return f"it needs compute capability {least[0]}.{least[1]}, this GPU has {found[0]}.{found[1]}"
    if dtype not in HALF and name != "flex":
        return "it computes in bf16 and fp16 only: choose weight dtype bf16"
    if name == "sage" and head_dim not in SAGE_HEADS:
        return f"it takes heads of {', '.join(map(str, SAGE_HEADS))}, this model's have {head_dim}"
    if name == "cudnn" and not (torch.backends.cudnn.is_available() and "set_priority" in options_of_torch()):
        return "it needs cuDNN and torch 2.6"
    return None


def options_of_torch() -> tuple[str, ...]:
    """Names of what torch's choice of kernels takes."""
    from inspect import signature

    from torch.nn.attention import sdpa_kernel

    return tuple(signature(sdpa_kernel).parameters)
