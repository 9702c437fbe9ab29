"""Compiled blocks compute what eager ones do, of every kind of weights; what cannot be compiled is said once."""

import logging

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import compiled, lora, offload, quant
from helios_video.helios_core.lora import Changes
from support.transformer import pair, prompt, random_history
from torch._dynamo.testing import CompileCounter

TOLERANCE = 1e-6


def velocities(model):
    """At the three sizes of a pyramid, with a history, and without one."""
    torch.manual_seed(1)
    history, text = model.history_context(random_history(16, 24)), model.text_context(prompt())
    found = [model.velocity(torch.randn(1, 16, 9, *size), 711.0, text, history) for size in ((4, 6), (8, 12), (16, 24))]
    found.append(model.velocity(torch.randn(1, 16, 3, 8, 12), 711.0, text))
    return found


def agree(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() / other.norm() < TOLERANCE


@pytest.fixture
def counter(monkeypatch):
    """torch.compile traces, but leaves code to eager torch; counts the graphs."""
    counter, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend=counter, fullgraph=True, **options))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


def whole(model):
    return model


def quantised(model):
    return quant.quantise_model(model, "int8")


def streamed(model):
    return offload.stream_blocks(model, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [whole, quantised, streamed])
def test_one_graph_serves_all_blocks_and_sizes(kind, counter):
    """One for all blocks but the last and one for that, with a history; and without one."""
    _, model = pair(0, fused=True, num_layers=4)
    wanted = velocities(kind(model))
    compiled.use(model)
    agree(velocities(model), wanted)
    assert counter.frame_count <= 5


@pytest.mark.slow
def test_a_lora_is_compiled_along(counter):
    _, model = pair(0, fused=True, num_layers=3)
    rng = torch.Generator().manual_seed(2)
    base = model.blocks[1].ffn.net[2]
    down, up = torch.randn(4, base.weight.shape[1], generator=rng), torch.randn(base.weight.shape[0], 4, generator=rng)
    model.blocks[1].ffn.net[2] = lora.LoraLinear(base, [(0, down, up)])
    wanted = velocities(model)
    compiled.use(model)
    agree(velocities(lora.adapt(model, Changes({}, {}, {}), merge=False)), wanted)


@pytest.mark.slow
def test_compiled_for_a_cpu_it_computes_the_same():
    pytest.importorskip("torch._inductor")
    if compiled.absent("cpu"):
        pytest.skip(compiled.absent("cpu"))
    _, model = pair(0, fused=True, num_layers=3)
    wanted = velocities(model)
    compiled.use(model)
    torch._dynamo.reset()
    agree(velocities(model), wanted)
    assert len(model.run.ways) == 2, "nothing failed"


def test_what_fails_to_compile_runs_as_it_is_and_that_is_said_once(monkeypatch, caplog):
    def broken(f, **options):
        def run(*args):
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    _, model = pair(0, fused=True)
    wanted = velocities(model)
    compiled.use(model)
    with caplog.at_level(logging.WARNING):
        agree(velocities(model), wanted)
    assert caplog.text.count("no compiler here") == 1


def test_who_is_compiled(monkeypatch, caplog):
    """A GPU unless it is off, a CPU when asked for; nothing where no compiler is."""
    compiled.tell.cache_clear()
    monkeypatch.setattr(compiled, "absent", lambda kind: None)
    assert compiled.wanted("auto", "cuda") and compiled.wanted("on", "cpu")
    assert not compiled.wanted("off", "cuda") and not compiled.wanted("auto", "cpu")
    monkeypatch.setattr(compiled, "absent", lambda kind: "Triton is not installed")
    with caplog.at_level(logging.WARNING):
        assert not compiled.wanted("auto", "cuda") and not compiled.wanted("auto", "cuda")
    assert caplog.text.count("Triton is not installed") == 1
    with pytest.raises(ValueError, match="compile on: Triton"):
        compiled.wanted("on", "cuda")
    with pytest.raises(ValueError, match="compile on: Triton"):
        load(compile="on").parts.check_ways()


def test_what_compiling_needs(monkeypatch):
    assert "Apple" in compiled.absent("mps")
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    assert "Triton" in compiled.absent("cuda")
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert compiled.absent("cpu") == "there is no C compiler"
