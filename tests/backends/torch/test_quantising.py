"""Quantising a few rows at a time: the bytes are those of the whole weight at once, however it is cut."""

import pytest
import torch
from helios_video.helios_core.backends.torch import quantising
from helios_video.helios_core.checkpoint import precision
from support import plain_quant
from support.quant import gaussian

KINDS = ("fp8_e4m3fn", "int8", "int4", "int8_g32", "int4_g128")
NAME = "blocks.0.ffn.net.2.weight"


def hard(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of all sizes, with zeros, equal numbers, outliers and numbers at the limits of what a factor can be."""
    weight = gaussian(rows, columns) * torch.logspace(-6, 2, rows)[:, None]
    weight[1], weight[2], weight[3, ::7], weight[4] = 0, 0.37, 50, 1e-33
    weight[5, 1:], weight[6] = 0, torch.linspace(-448, 448, columns)
    return weight.to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(48, 256), (37, 160)])
@pytest.mark.parametrize("at_once", [1, 1000, 1 << 18])
def test_the_bytes_are_those_of_the_whole_weight(kind, dtype, shape, at_once, monkeypatch):
    monkeypatch.setattr(quantising, "AT_ONCE", at_once)
    weight = hard(*shape, dtype)
    before = weight.clone()
    found = list(quantising.quantise(NAME, weight, kind).values())
    wanted = plain_quant.quantise(weight, kind.partition("_g")[0], precision.group_size(kind, shape[1]))
    assert torch.equal(weight, before) and len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.contiguous().view(torch.uint8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_found_in_any_block(kind, bad, monkeypatch):
    monkeypatch.setattr(quantising, "AT_ONCE", 1000)
    weight = gaussian(48, 256)
    weight[45, 3] = bad
    with pytest.raises(ValueError, match=f"{NAME} holds NaN or infinity"):
        quantising.quantise(NAME, weight, kind)


def test_a_weight_that_may_be_trained_is_quantised():
    weight = torch.nn.Parameter(gaussian(16, 128))
    assert not quantising.quantise(NAME, weight, "int4")[NAME].requires_grad


def test_the_blocks_take_little_memory_beside_the_weight(monkeypatch):
    """Three numbers for each weight of a block, and small change."""
    taken = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: taken.append(empty(*a, **k)) or taken[-1])
    quantising.quantise(NAME, gaussian(4096, 1024), "int4")
    assert max(t.numel() for t in taken) <= 3 * quantising.AT_ONCE * torch.get_num_threads()
