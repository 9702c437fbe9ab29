"""The quantisers of backends/torch/quantising.py over whole weights at once, as the pack had them until 0.2: what the
quick ones must equal to the bit, and what tests/benchmarks/quantising.py races them with."""

import torch


def quantise(w: torch.Tensor, kind: str, columns: int) -> list[torch.Tensor]:
    """A weight [o i] -> codes, scale and, of int4, zero; columns: of a group."""
    return {"fp8_e4m3fn": fp8, "int8": int8, "int4": int4}[kind](w.float(), columns)


def positive(scale):
    return torch.where(scale > 1e-30, scale, torch.ones_like(scale))


def fp8(w, _):
    scale = positive(w.abs().amax(dim=1, keepdim=True) / 448.0)
    return [(w / scale).clamp_(-448.0, 448.0).to(torch.float8_e4m3fn), scale]


def int8(w, columns):
    groups = w.unflatten(1, (-1, columns))
    scale = positive(groups.abs().amax(dim=2, keepdim=True) / 127).bfloat16()
    codes = (groups / scale.float()).round_().clamp_(-128, 127).to(torch.int8)
    return [codes.flatten(1), scale[..., 0]]


def int4(w, columns):
    groups = w.unflatten(1, (-1, columns))
    low, high = (0.95 * x for x in groups.aminmax(dim=2, keepdim=True))
    scale, zero = (high - low) / 15, low
    for _ in range(3):
        scale, zero = fit(groups, coded(groups, *rounded(scale, zero)), scale)
    scale, zero = rounded(scale, zero)
    first, second = coded(groups, scale, zero).flatten(1).to(torch.uint8).chunk(2, dim=1)
    return [first | second << 4, scale[..., 0].bfloat16(), zero[..., 0].bfloat16()]


def coded(groups, scale, zero):
    return ((groups - zero) / scale).round_().clamp_(0, 15)


def rounded(scale, zero):
    return positive(scale).bfloat16().float(), zero.bfloat16().float()


def fit(groups, codes, scale):
    mean, level = groups.mean(dim=2, keepdim=True), codes.mean(dim=2, keepdim=True)
    codes = codes - level
    spread = codes.square().sum(dim=2, keepdim=True)
    fitted = (codes * (groups - mean)).sum(dim=2, keepdim=True) / spread.clamp_min(1e-6)
    scale = torch.where(spread > 1e-6, fitted, scale)
    return scale, mean - scale * level
