"""The Triton kernels in Triton's interpreter, beside plain torch, at sizes that fit no block; none has run on a GPU."""

import logging
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helios_video.helios_core.backends.torch import compiled, fused, kernels, plain, triton_ops, triton_trial
from support.transformer import pair, prompt, random_history

pytest.importorskip("triton")
EPS = 1e-6


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # read when Triton is imported, so in a process of its own
inside = pytest.mark.skipif(not INTERPRETED, reason="runs in the process that test_all_below starts")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_all_below():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "34 passed" in done.stdout, done.stdout


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@inside
@pytest.mark.parametrize("width", [6, 130, 640])
@pytest.mark.parametrize("batch", [1, 3])
def test_norms_of_rows_that_lie_apart(width, batch):
    x = torch.randn(batch, 7, width + 3)[:, 1:, :width]
    scale, shift = torch.randn(2, batch, 1, width)
    out = torch.zeros(batch, 9, width)
    triton_ops.norm(x, scale, shift, out[:, 2:8], EPS)
    assert error(out[:, 2:8], plain.modulate(x, scale, shift, EPS)) < 1e-6
    assert not out[:, :2].any() and not out[:, 8:].any(), "rows beside are left alone"


@inside
@pytest.mark.parametrize("width", [6, 130, 4100])
def test_gated_additions(width):
    x, update, gate = torch.randn(2, 5, width), torch.randn(2, 8, width), torch.randn(2, 1, width)
    for given in (gate, gate[:1], None):
        wanted = x + update[:, 3:] * (1 if given is None else given)
        found = x.clone()
        triton_ops.add(found, update[:, 3:], given)
        assert error(found, wanted) < 1e-6


@inside
@pytest.mark.parametrize(("heads", "head"), [(1, 6), (3, 10), (5, 128)])
@pytest.mark.parametrize("parts", [1, 2])
def test_queries_and_keys_are_normed_and_turned(heads, head, parts):
    width = heads * head
    x = torch.randn(2, 5, 3, width)[:, :, :parts]
    gain, rotations = torch.randn(parts, width), torch.randn(5, head // 2, 2)
    wanted = fused.turn(x, gain, rotations, heads=heads, eps=EPS)
    found = triton_ops.turn(x, gain, rotations, heads, EPS)
    for one, other in zip(found, wanted, strict=True):
        assert error(one.transpose(1, 2), other) < 1e-6
    normed = triton_ops.turn(x[:, :, :1], gain[:1], None, 1, EPS)[0, :, :, 0]
    assert error(normed, fused.rms_norm(x[:, :, 0], gain[0], EPS)) < 1e-6


@inside
@pytest.mark.parametrize("width", [6, 96, 130])
def test_the_vaes_norm_and_silu_into_frames_after_the_past(width):
    x, gamma = torch.randn(2, 3, 5, 7, width), torch.randn(width, 1, 1, 1)
    found, wanted = torch.ones(2, 2, 5, 5, 7, width)
    triton_ops.activate(x, gamma.flatten(), found[:, 2:])
    plain.activate(x, gamma, wanted[:, 2:])
    assert error(found, wanted) < 1e-6


@inside
@pytest.mark.parametrize("dtype", triton_ops.LIMITS)
@pytest.mark.parametrize("name", sorted(set(triton_trial.TRIALS) - {"linear_gelu"}))  # which has another GELU on a CPU
def test_a_trial_on_the_device_passes(name, dtype):
    triton_ops.tried.cache_clear()
    assert triton_ops.trusted(name, torch.device("cpu"), dtype, 130)


@inside
def test_a_kernel_that_differs_or_fails_is_not_used_and_said_once(monkeypatch, caplog):
    triton_ops.tried.cache_clear()
    given = "norm", torch.device("cpu"), torch.float32, 8
    monkeypatch.setitem(triton_trial.TRIALS, "norm", lambda *_: (torch.ones(3), torch.zeros(3) + 2))
    with caplog.at_level(logging.WARNING):
        assert not triton_ops.trusted(*given) and not triton_ops.trusted(*given)
    assert caplog.text.count("norm is not used: it differs") == 1
    triton_ops.tried.cache_clear()
    monkeypatch.setitem(triton_trial.TRIALS, "norm", lambda *_: 1 / 0)
    assert not triton_ops.trusted(*given) and "ZeroDivisionError" in caplog.text
    triton_ops.tried.cache_clear()
    monkeypatch.setenv("HELIOS_TRITON", "off")
    assert not triton_ops.trusted("add", *given[1:])
    triton_ops.tried.cache_clear()


@inside
def test_what_a_cpu_a_compiler_or_a_training_computes_is_not_theirs():
    assert not triton_ops.usable("norm", torch.randn(1, 3, 8), torch.float32)


@pytest.fixture
def on_this_cpu(monkeypatch):
    """The network takes the kernels, here, and none of a CPU's own ways."""
    monkeypatch.setattr(triton_ops, "DEVICES", ("cpu",))
    monkeypatch.setattr(fused, "on_cpu", lambda x: False)
    monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    # On a CPU torch's product has the exact GELU in its last pass, not the tanh form.
    monkeypatch.setattr(triton_ops, "linear_gelu", lambda x, w, b: F.gelu(F.linear(x, w, b), approximate="tanh"))
    monkeypatch.setattr(triton_trial, "TRIALS", triton_trial.TRIALS | {"linear_gelu": lambda *_: torch.ones(2, 1)})
    triton_ops.tried.cache_clear()


def velocity(model, batch=1):
    torch.manual_seed(1)
    history = model.history_context(random_history(4, 6, b=batch, frames=3))
    return model.velocity(torch.randn(batch, 16, 3, 4, 6), 711.0, model.text_context(prompt(batch)), history)


@inside
def test_a_whole_transformer_by_kernels(on_this_cpu, monkeypatch):
    _, model = pair(0, fused=True)
    found = velocity(model, batch=2)
    monkeypatch.setattr(triton_ops, "DEVICES", ())
    wanted = velocity(model, batch=2)
    assert not torch.equal(found, wanted) and error(found, wanted) < 2e-6


@inside
def test_a_compiler_is_given_its_kernels_without_a_break(on_this_cpu, monkeypatch):
    """Traced as on a GPU; graphs are left to eager torch, whose kernels run in the interpreter."""
    _, model = pair(0, fused=True)
    wanted = velocity(model)
    graphs, real = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend=backend, fullgraph=True, **options))
    compiled.use(model)
    assert error(velocity(model), wanted) < 1e-6
    called = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert any("helios.turn" in name for name in called) and not any("helios.norm" in name for name in called)
    assert len(model.run.ways) == 2, "nothing failed"
