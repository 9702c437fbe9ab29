"""Attention by choice: every way computes the same, the padding's key is exact, what is absent is refused by name."""

import logging
import math
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import attention, kernels
from helios_video.helios_core.backends.torch.preferred import Preferred
from helios_video.helios_core.devices import ATTENTION
from support.transformer import error, pair, prompt, random_history, run_ours

CUDA = torch.device("cuda")


def heads(*shape, dtype=torch.float32, seed=0):
    """q [b h n d]-like random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def given(b=2, tokens=50, keys=20, dim=64, dtype=torch.float32):
    """q of b, and k and v of one prompt for all of them."""
    q, k, v = ((b, 3, tokens, dim), (1, 3, keys, dim), (1, 3, keys, dim))
    return [heads(*shape, dtype=dtype, seed=i) for i, shape in enumerate((q, k, v))]


def raised(keys: int, padding: int) -> torch.Tensor:
    """The bias that makes the last key stand for so many rows."""
    bias = torch.zeros(1, 1, 1, keys)
    bias[..., -1] = math.log(padding)
    return bias


@pytest.fixture
def hopper(monkeypatch):
    """torch says that there is a GPU of that compute capability, 9.0 unless it is called."""

    def say(*capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)

    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    say(9, 0)
    return say


@pytest.mark.parametrize("padding", [2, 100, 510])
@pytest.mark.parametrize("keys", [2, 3, 65])
def test_the_split_softmax_is_the_masked_one(padding, keys):
    q, k, v = given(keys=keys)
    got = attention.with_padding(attention.flash, True)(q, k, v, raised(keys, padding))
    copies = [torch.cat([x, x[:, :, -1:].expand(-1, -1, padding - 1, -1)], dim=2).expand(2, -1, -1, -1) for x in (k, v)]
    wanted = F.scaled_dot_product_attention(*(x.double() for x in (q, *copies)))
    assert error(got, wanted) < 1e-6
    assert error(got, kernels.attention(q, k, v, raised(keys, padding))) < 1e-6


def test_a_large_logit_does_not_overflow_the_split():
    q, k, v = given()
    bias = raised(20, 500)
    for factor in (40, -40):
        last = torch.cat([k[:, :, :-1], factor * k[:, :, -1:]], dim=2)
        got = attention.over_padding(q, *(x.expand(2, -1, -1, -1) for x in (last, v)), bias)
        assert error(got, F.scaled_dot_product_attention(q, last, v, attn_mask=bias)) < 1e-6


def test_the_split_in_bf16_is_as_near_as_the_mask():
    q, k, v = given(tokens=200, dtype=torch.bfloat16)
    bias = raised(20, 492)
    wanted = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=bias.double())
    assert error(attention.with_padding(attention.flash, True)(q, k, v, bias), wanted) < 4e-3


def test_only_the_last_key_has_a_bias():
    """What the split rests on."""
    _, ours = pair()
    bias = ours.text_context(prompt()).bias
    assert bias.dtype == torch.float32 and bias.shape[:3] == (1, 1, 1)
    assert (
        not bias[..., :-1].any() and bias[..., -1] == math.log(32 - 20) if bias.shape[-1] == 21 else bias[..., -1] > 0
    )


def test_a_forward_by_any_way_is_the_same():
    _, ours = pair(fused=True)
    torch.manual_seed(1)
    x, text, history = torch.randn(2, 16, 2, 8, 8), prompt(1), random_history(8, 8, 2, frames=2)
    wanted = run_ours(ours, x, 500.0, text, history)
    for name in ("auto", "sdpa", "math", "flash"):
        ours.attend_by(attention.find(name, "cpu", torch.float32, 24))
        found = run_ours(ours, x, 500.0, text, history)
        assert error(found, wanted) < 1e-6, name
        if name in ("auto", "sdpa"):
            assert torch.equal(found, wanted)
    ours.attend_by(attention.in_parts)
    assert error(run_ours(ours, x, 500.0, text, history), wanted) < 1e-6


def test_queries_in_parts_are_the_whole(monkeypatch):
    q, k, v = given()
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=raised(20, 9))
    monkeypatch.setattr(attention, "SCORES", 2 * 3 * 20 * 7)  # seven queries at a time
    seen = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, *a, **o: seen.append(q.shape[2]) or real(q, *a, **o)
    )
    assert error(attention.in_parts(q, k, v, raised(20, 9)), wanted) < 1e-6
    assert seen == [7] * 7 + [1]


def test_auto_on_a_device(hopper):
    find = attention.automatic
    assert find(torch.device("cpu"), torch.bfloat16, 128) is kernels.attention
    assert find(torch.device("mps"), torch.bfloat16, 128) is attention.in_parts
    for capability, dtype, cudnn in (
        ((9, 0), torch.bfloat16, True),
        ((10, 0), torch.float16, True),
        ((9, 0), torch.float32, False),
        ((8, 9), torch.bfloat16, False),
        ((12, 0), torch.bfloat16, False),
    ):
        hopper(*capability)
        way = way_of(find(CUDA, dtype, 128))
        assert isinstance(way, Preferred) == cudnn, capability
        assert cudnn or way is attention.sdpa


def way_of(function):
    """What with_padding was given."""
    return dict(zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__)))["way"]


def test_the_first_failure_is_said_and_the_next_way_goes_on(caplog):
    calls = []

    def broken(q, k, v):
        calls.append("cudnn")
        raise RuntimeError("No valid execution plans built")

    way = attention.with_padding(Preferred("attention", [("cudnn", broken), ("sdpa", attention.sdpa)]), True)
    q, k, v = given()
    with caplog.at_level(logging.WARNING):
        first, second = way(q, k, v), way(q, k, v)
    assert torch.equal(first, second) and calls == ["cudnn"]
    assert [r.getMessage() for r in caplog.records] == [
        "attention: cudnn fails here (No valid execution plans built); sdpa from now on"
    ]


def test_where_flash_has_no_sums_a_mask_goes_on(monkeypatch, caplog):
    """torch for Windows was long built without flash attention."""

    def broken(*_):
        raise RuntimeError("USE_FLASH_ATTENTION was not enabled for build.")

    monkeypatch.setattr(attention, "with_sums", broken)
    q, k, v = given()
    way = attention.with_padding(attention.sdpa, True)
    with caplog.at_level(logging.WARNING):
        found = [way(q, k, v, raised(20, 100)) for _ in range(2)]
    assert all(
        torch.equal(x, kernels.attention(q, *(t.expand(2, -1, -1, -1) for t in (k, v)), raised(20, 100))) for x in found
    )
    assert caplog.text.count("flash fails here") == 1


def test_a_gpu_is_tried_before_a_compiler_is_given_the_attention(monkeypatch):
    seen = []
    real = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device=None, dtype=None: real(*shape, dtype=dtype))
    for device in ("cpu", "mps", "cuda"):
        attention.try_out(lambda *args: seen.append(len(args)), device, torch.bfloat16, 64)
    assert seen == [3, 4]


def test_memory_that_runs_out_is_no_failure_of_a_way():
    def full(q, k, v):
        raise torch.cuda.OutOfMemoryError("out of memory")

    way = Preferred("attention", [("cudnn", full), ("sdpa", attention.sdpa)])
    with pytest.raises(torch.cuda.OutOfMemoryError):
        way(*given(b=1))
    assert len(way.ways) == 2


@pytest.mark.parametrize("name", ["cudnn", "flash3", "sage", "flex"])
def test_what_is_absent_is_refused_before_anything_loads(name):
    with pytest.raises(ValueError, match=rf"attention {name}: .*; there is auto, sdpa, flash, math$"):
        load(attention=name)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="attention 'best': wanted one of auto, sdpa, cudnn"):
        load(attention="best")


def test_every_name_has_a_way():
    assert ("auto", *attention.MAKE) == ATTENTION


def test_reasons_on_a_gpu(hopper, monkeypatch):
    names = {"flash_attn_interface": ModuleType("f"), "sageattention": ModuleType("s")}
    real = attention.find_spec
    monkeypatch.setattr(attention, "find_spec", lambda name: name if name in names else real(name))
    half = torch.bfloat16
    assert [attention.absent(n, CUDA, half, 128) for n in ("cudnn", "flash", "flash3", "sage")] == [None] * 4
    assert "weight dtype bf16" in attention.absent("cudnn", CUDA, torch.float32, 128)
    assert "this model's have 24" in attention.absent("sage", CUDA, half, 24)
    hopper(8, 9)
    assert "9.0, this GPU has 8.9" in attention.absent("flash3", CUDA, half, 128)
    assert attention.absent("flash", CUDA, half, 128) is None
    hopper(7, 5)
    assert "8.0, this GPU has 7.5" in attention.absent("flash", CUDA, half, 128)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "NVIDIA" in attention.absent("flash", CUDA, half, 128)
    assert way_of(attention.automatic(CUDA, half, 128)) is attention.sdpa


def stand_in(monkeypatch, package: str, **functions):
    """A package that is installed."""
    module = ModuleType(package)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, package, module)


def test_sage_is_given_heads_before_tokens_and_its_own_scale(monkeypatch):
    def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, **_):
        assert tensor_layout == "HND" and not is_causal and sm_scale is None
        assert q.shape == (1, 3, 50, 64) and k.shape == v.shape == (1, 3, 20, 64)
        return F.scaled_dot_product_attention(q, k, v)

    stand_in(monkeypatch, "sageattention", sageattn=sageattn)
    assert torch.equal(attention.sage()(*given(b=1)), F.scaled_dot_product_attention(*given(b=1)))


@pytest.mark.parametrize("with_sums", [True, False])
def test_flash3_is_given_tokens_before_heads(monkeypatch, with_sums):
    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        assert q.shape == (1, 50, 3, 64) and k.shape == v.shape == (1, 20, 3, 64) and softmax_scale is None
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
        return (out, None) if with_sums else out

    stand_in(monkeypatch, "flash_attn_interface", flash_attn_func=flash_attn_func)
    found = attention.flash3()(*given(b=1))
    assert torch.equal(found, F.scaled_dot_product_attention(*given(b=1)))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_is_compiled_once_and_computes_the_same(monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: made.append(options) or function)
    way = attention.flex()
    for _ in range(2):
        assert error(way(*given(b=1)), F.scaled_dot_product_attention(*given(b=1))) < 1e-6
    assert made.count({"dynamic": True}) == 1


def test_cudnn_is_asked_first_and_restored(monkeypatch):
    before = torch._C._get_sdp_priority_order()
    seen = []
    real = F.scaled_dot_product_attention

    def watched(*args):
        seen.append(torch._C._get_sdp_priority_order()[0])
        return real(*args)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    attention.of_torch("CUDNN_ATTENTION", set_priority=True)(*given(b=1))
    assert seen == [int(torch.nn.attention.SDPBackend.CUDNN_ATTENTION)]
    assert torch._C._get_sdp_priority_order() == before


def test_a_compiler_takes_every_way_of_torch_whole():
    """No graph break: a block is compiled with the attention in it."""
    torch._dynamo.reset()
    first = attention.of_torch("CUDNN_ATTENTION", set_priority=True)
    way = attention.with_padding(Preferred("attention", [("cudnn", first), ("sdpa", attention.sdpa)]), True)
    whole = torch.compile(way, backend="eager", fullgraph=True)
    q, k, v = given()
    for bias in (None, raised(20, 100)):
        assert error(whole(q, k, v, bias), way(q, k, v, bias)) < 1e-6


def test_kept_chunks_are_those_of_one_attention():
    assert load(attention="math").parts.identity != load().parts.identity == load(attention="auto").parts.identity
