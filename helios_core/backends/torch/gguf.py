"""Weights in GGUF's blocks, widened to the compute type for every product, as the codes of quant.py are.

A row is a run of blocks; each holds its factors and its codes. In float32 the numbers are those of the gguf package to
the bit: the same products in the same order. Source of the layouts: ggml-quants.c of ggml-org/ggml.
Rows are widened a few at a time, so that what this takes beside the weight stays small, on the CPU in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...checkpoint.gguf import BLOCKS
from . import kernels

CODES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # what four bits of IQ4 stand for
AT_ONCE = {"cpu": 1 << 17}  # weights
ON_DEVICE = 1 << 24


def half(x: Tensor) -> Tensor:
    """Bytes [n 2k] of float16 numbers -> float32 [n k]."""
    return x.contiguous().view(torch.float16).float()


def signed(x: Tensor) -> Tensor:
    """Bytes [n k] of int8 numbers -> float32."""
    return x.contiguous().view(torch.int8).float()


def spread(x: Tensor, run: int, bits: int) -> Tensor:
    """Codes out of bytes [n k]: of each run of bytes first the lowest bits of all, then the next; [n k*8/bits]."""
    x = x.reshape(len(x), -1, run)
    parts = [x >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return torch.stack(parts, dim=2).flatten(1)


def grouped(x: Tensor, factor: Tensor, less: Tensor | None = None) -> Tensor:
    """x [n k] times a factor [n g] per group of neighbours, less something [n g]: float32 [n k]."""
    y = factor[..., None] * x.float().view(*factor.shape, -1)
    return (y if less is None else y - less[..., None]).flatten(1)


def high_bits(x: Tensor) -> Tensor:
    """The 32 bits of 4 bytes [n 4], the lowest first: [n 32]."""
    return torch.stack([x >> shift & 1 for shift in range(8)], dim=2).flatten(1)


def q4_0(b: Tensor) -> Tensor:
    """b: blocks' bytes [n bytes] -> float32 [n columns], as for all below."""
    return half(b[:, :2]) * (spread(b[:, 2:], 16, 4).float() - 8)


def q4_1(b: Tensor) -> Tensor:
    """A factor and a zero."""
    return half(b[:, :2]) * spread(b[:, 4:], 16, 4).float() + half(b[:, 2:4])


def q5_0(b: Tensor) -> Tensor:
    """The fifth bits apart."""
    q = spread(b[:, 6:], 16, 4) | high_bits(b[:, 2:6]) << 4
    return half(b[:, :2]) * (q.float() - 16)


def q5_1(b: Tensor) -> Tensor:
    """The same with a zero."""
    q = spread(b[:, 8:], 16, 4) | high_bits(b[:, 4:8]) << 4
    return half(b[:, :2]) * q.float() + half(b[:, 2:4])


def q8_0(b: Tensor) -> Tensor:
    """A factor per 32 int8 numbers."""
    return signed(b[:, 2:]) * half(b[:, :2])


def q2_k(b: Tensor) -> Tensor:
    """16 groups whose factors and zeros have four bits each."""
    scales, qs, d, low = b.split([16, 64, 2, 2], dim=1)
    return grouped(spread(qs, 32, 2), half(d) * (scales & 15).float(), half(low) * (scales >> 4).float())


def q3_k(b: Tensor) -> Tensor:
    """16 groups whose factors have six bits; where the high bit of a code is 0, four less."""
    high, qs, scales, d = b.split([32, 64, 12, 2], dim=1)
    scales = spread(scales[:, :8], 8, 4) | spread(scales[:, 8:], 4, 2) << 4
    q = spread(qs, 32, 2).float() - ((spread(high, 32, 1) ^ 1) << 2).float()
    return grouped(q, half(d) * (scales.float() - 32))


def six_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """The factors and zeros of 8 groups, six bits each, out of 12 bytes; float32 [n 8] both."""
    d, m, rest = x.split(4, dim=1)
    scale = torch.cat([d & 63, rest & 15 | d >> 2 & 48], dim=1)
    low = torch.cat([m & 63, rest >> 4 | m >> 2 & 48], dim=1)
    return scale.float(), low.float()


def q4_k(b: Tensor) -> Tensor:
    """8 groups with factors and zeros."""
    scale, low = six_bits(b[:, 4:16])
    return grouped(spread(b[:, 16:], 32, 4), half(b[:, :2]) * scale, half(b[:, 2:4]) * low)


def q5_k(b: Tensor) -> Tensor:
    """The same with the fifth bits apart."""
    scale, low = six_bits(b[:, 4:16])
    q = spread(b[:, 48:], 32, 4) | spread(b[:, 16:48], 32, 1) << 4
    return grouped(q, half(b[:, :2]) * scale, half(b[:, 2:4]) * low)


def q6_k(b: Tensor) -> Tensor:
    """16 groups with factors in int8."""
    low, high, scales, d = b.split([128, 64, 16, 2], dim=1)
    q = spread(low, 64, 4) | spread(high, 32, 2) << 4
    return grouped(q.float() - 32, half(d) * signed(scales))


def iq4(q: Tensor) -> Tensor:
    """What codes of four bits stand for."""
    return torch.tensor(CODES, dtype=torch.float32, device=q.device)[q.int()]


def iq4_nl(b: Tensor) -> Tensor:
    """Codes of a table."""
    return half(b[:, :2]) * iq4(spread(b[:, 2:], 16, 4))


def iq4_xs(b: Tensor) -> Tensor:
    """The same in 8 groups whose factors have six bits."""
    scales = spread(b[:, 4:8], 1, 4) | spread(b[:, 2:4], 1, 2) << 4
    return grouped(iq4(spread(b[:, 8:], 16, 4)), half(b[:, :2]) * (scales.float() - 32))


FORMS = (q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs)
WIDEN = {function.__name__.upper(): function for function in FORMS}


def widen(form: str, data: Tensor, out: Tensor) -> Tensor:
    """Blocks' bytes into `out`, which is contiguous and of any float type; form: one of gguf.BLOCKS. Returns `out`."""
    columns, size = BLOCKS[form]
    step = max(1, AT_ONCE.get(data.device.type, ON_DEVICE) // columns)
    blocks, rows = data.reshape(-1, size), out.view(-1, columns)
    for some, into in zip(blocks.split(step), rows.split(step), strict=True):
        into.copy_(WIDEN[form](some))
    return out


class BlockLinear(nn.Module):
    """A linear layer of weights in blocks. parts: rows of the weight, one below the other: (type, bytes [o n]).
    `dtype` is that of its inputs, bias and products; `weight` is a copy."""

    def __init__(self, parts: list[tuple[str, Tensor]], bias: Tensor):
        super().__init__()
        self.forms = [form for form, _ in parts]
        for i, (_, data) in enumerate(parts):
            self.register_buffer(f"blocks_{i}", data)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @classmethod
    def of(cls, form: str, data: Tensor, bias: Tensor) -> BlockLinear:
        """A layer of one type."""
        return cls([(form, data)], bias)

    @property
    def parts(self) -> list[tuple[str, Tensor]]:
        """As given."""
        return [(form, getattr(self, f"blocks_{i}")) for i, form in enumerate(self.forms)]

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and takes its input as."""
        return self.bias.dtype

    @property
    def weight(self) -> Tensor:
        """The weight [o i] in `dtype`, widened anew."""
        columns = next(width(form, data) for form, data in self.parts)
        out = torch.empty(len(self.bias), columns, dtype=self.dtype, device=self.bias.device)
        for (form, data), rows in zip(self.parts, out.split([len(data) for _, data in self.parts]), strict=True):
            widen(form, data, rows)
        return out

    def rows(self, chosen: Tensor) -> Tensor:
        """Rows [n i] of the weight, float32, by their numbers [n]; of a layer of one type."""
        ((form, data),) = self.parts
        return BlockLinear.of(form, data[chosen], torch.zeros(len(chosen), device=data.device)).weight

    def joins(self, other: nn.Module) -> bool:
        """Whether it and another layer of the same input can be one: types may differ, as in llama.cpp's mixtures."""
        return type(other) is type(self)

    @classmethod
    def join(cls, layers: list[BlockLinear]) -> BlockLinear:
        """Layers of one input as one layer of all their outputs."""
        parts = [part for layer in layers for part in layer.parts]
        return cls(parts, torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x [... i] -> [... o], as `Linear`."""
        return kernels.linear(x, self.weight, self.bias, gelu)


def width(form: str, data: Tensor) -> int:
    """Columns of rows of blocks."""
    columns, size = BLOCKS[form]
    return data.shape[1] // size * columns
