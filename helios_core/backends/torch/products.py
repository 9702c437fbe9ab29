"""Products in eight bits: activations are quantised row by row as they come, and the codes multiplied as they are.

x is codes_x * scale_x, one factor a row, and a weight codes_w * scale_w, one factor a row of outputs; so the product is
codes_x codes_w^T * scale_x scale_w^T. fp8 by torch._scaled_mm: with the factors of rows in the kernel where torch has
that, else with factors of one, and those of rows after it. int8 by torch._int_mm, for weights with one factor a row;
what is rotated in the weight is undone in x, since the rotation is its own inverse.

Nothing is widened, and a GPU multiplies eight bits at twice the speed of sixteen. What it costs is the rounding of x:
measured by tests/benchmarks/quant.py.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from .preferred import Preferred
from .quant import QuantLinear, dequantise, turn

LOG = logging.getLogger(__name__)
FP8 = torch.float8_e4m3fn
MOST = {FP8: 448.0, torch.int8: 127.0}
MULTIPLE = {FP8: 16, torch.int8: 8}  # what rows and columns of a weight must be multiples of
FEW = 17  # rows that int8's kernel wants
ADA = (8, 9)  # the first compute capability that multiplies fp8


def rounded(x: Tensor, form: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes [m i] of x [m i] and their factors [m 1] float32. NaN and infinity stay NaN in fp8's result."""
    most = MOST[form]
    scale = torch.linalg.vector_norm(x, float("inf"), dim=-1, keepdim=True) / most
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    codes = x / scale
    if form == torch.int8:  # fp8 rounds what is a little over its most back to that
        codes.round_().clamp_(-most, most)
    return codes.to(form), scale.float()


def row_wise(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """x [m i] times codes [o i] with factors [o 1], plus bias [o]: one kernel. [m o] in x's type."""
    small, own = rounded(x, FP8)
    out = x.dtype if x.device.type == "cpu" else torch.bfloat16  # all that kernels of every torch write
    y = torch._scaled_mm(small, codes.t(), scale_a=own, scale_b=scale.t(), bias=bias.to(out), out_dtype=out)
    return y.to(x.dtype)


def unit_wise(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The same with factors of one in the kernel."""
    small, own = rounded(x, FP8)
    out = x.dtype if x.device.type == "cpu" else torch.bfloat16
    one = torch.ones((), device=x.device)
    y = torch._scaled_mm(small, codes.t(), scale_a=one, scale_b=one, out_dtype=out)
    return torch.addcmul(bias.float(), y * own, scale.t()).to(x.dtype)


def in_int8(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The same for int8. CUDA's kernel takes no fewer than FEW rows."""
    if len(x) < FEW:
        return widened(x, codes, scale, bias)
    small, own = rounded(x, torch.int8)
    y = torch._int_mm(small, codes.t())
    return torch.addcmul(bias.float(), y * own, scale.t().float()).to(x.dtype)


def widened(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The same with the weight in x's type."""
    return F.linear(x, dequantise(codes, scale, None, x.dtype), bias)


def rotated(x: Tensor, size: int) -> Tensor:
    """x [m i] with every `size` columns turned as those of a weight are."""
    return (x.view(-1, size) @ turn(size, x.device, x.dtype)).view(x.shape)


def ways(device: torch.device) -> list[tuple]:
    """How fp8 is multiplied there, the best first."""
    return [*([("row by row", row_wise)] if has_row_wise(device) else []), ("factors after the product", unit_wise)]


def has_row_wise(device: torch.device) -> bool:
    """Whether torch's kernel with factors of rows may be used: before 2.7 it read beyond its input on Hopper, and
    before 2.12 it ignored the stream on Ada (pytorch issues 133334, 177651)."""
    if device.type == "cpu" or torch.__version__ >= (2, 12):
        return True
    return torch.__version__ >= (2, 7) and torch.cuda.get_device_capability(device)[0] == 9


def absent(device, form: str | None) -> str | None:
    """Why weights of a form (of precision.QUANTISED, or None) have no such products on a device; None if they have."""
    device = torch.device(device)
    if torch.__version__ < (2, 5):
        return "it needs torch 2.5"
    if form not in ("fp8_e4m3fn", "int8"):
        return "it is for weights in fp8, and for int8 with one factor a row: choose weight dtype fp8_e4m3fn"
    if device.type == "cpu":
        return None if hasattr(torch, "_scaled_mm" if form != "int8" else "_int_mm") else "this torch has none"
    if device.type != "cuda" or torch.version.hip is not None:
        return "it needs a GPU of NVIDIA's"
    found = torch.cuda.get_device_capability(device)
    if form != "int8" and found < ADA:
        return f"fp8 needs compute capability 8.9, this GPU has {found[0]}.{found[1]}"
    return None


def chosen(name: str, device, form: str | None) -> bool:
    """Whether a way of ways.PRODUCTS is to multiply in eight bits. auto: fp8 on a GPU that does. ValueError where it
    cannot be."""
    if name == "scaled" and (reason := absent(device, form)):
        raise ValueError(f"products scaled: {reason}; or leave products at auto")
    if name == "auto":
        return torch.device(device).type == "cuda" and form == "fp8_e4m3fn" and absent(device, form) is None
    return name == "scaled"


def fits(codes: Tensor, scale: Tensor, zero: Tensor | None, columns: Tensor | None, rotation: int = 0) -> bool:
    """Whether what a quantised layer holds can be multiplied so: one factor a row, and sizes that kernels take."""
    (o, i), form = codes.shape, codes.dtype
    plain = zero is None and columns is None and scale is not None and scale.shape == (o, 1)
    if form not in MULTIPLE or not plain or (form == FP8 and rotation):
        return False
    return o % MULTIPLE[form] == 0 and i % MULTIPLE[form] == 0


class Product:
    """What multiplies in eight bits in place of a linear layer whose codes have a form; where its kernels fail, the
    weight is widened as before."""

    def __init__(self, form: torch.dtype, device: torch.device):
        own = ways(device) if form == FP8 else [("int8", in_int8)]
        self.ways = Preferred(f"products in {form}", [*own, ("widened weights", widened)])
        if device.type == "cuda":  # so that what fails there is given up before a compiler is given it
            x, codes = (torch.zeros(32, 32, device=device, dtype=dtype) for dtype in (torch.bfloat16, torch.int8))
            self.ways(x, codes.to(form), torch.ones(32, 1, device=device), x[0])

    def __call__(self, x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor, rotation: int, gelu: bool) -> Tensor:
        """x [... i] -> [... o]; gelu: then GELU."""
        rows = x.flatten(0, -2)
        y = self.ways(rotated(rows, rotation) if rotation else rows, codes, scale, bias).view(*x.shape[:-1], -1)
        return F.gelu(y, approximate="tanh") if gelu else y


def use(model: torch.nn.Module, device) -> int:
    """Has the layers of a loaded model that fit multiply in eight bits. Returns how many do."""
    found = [
        m
        for m in model.modules()
        if isinstance(m, QuantLinear) and fits(m.codes, m.scale, m.zero, m.columns, m.rotation)
    ]
    if not found:
        LOG.warning("products in eight bits want one factor a row, which no layer here has: all are widened")
    made = {form: Product(form, torch.device(device)) for form in {layer.codes.dtype for layer in found}}
    for layer in found:
        layer.product = made[layer.codes.dtype]
    return len(found)
