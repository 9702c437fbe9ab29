"""The compiled step of the MLX transformer: graphs, weights, stops, memory. Named: M12, M22."""

from __future__ import annotations

import gc
import shutil

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer as Torch
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.lora import changes, files
from helios_video.helios_core.lora.strength import Strength
from support.loras import CONFIG, SHAPES, make_pairs, peft
from support.loras import SIZES as LORA_SIZES
from support.loras import write as write_lora
from support.mlx import load, perturb, write
from support.transformer import SIZES, prompt, random_history

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.mlx import lora as mlx_lora  # noqa: E402
from helios_video.helios_core.backends.mlx.transformer import Block  # noqa: E402

STAGES = ((2, 2), (4, 6), (8, 12))


def model(folder, **sizes):
    """A small one with random weights, one block deep."""
    torch.manual_seed(0)
    sizes = {**SIZES, "num_layers": 1, **sizes}
    return load(write(folder, perturb(Torch(TransformerConfig(**sizes))).state_dict(), sizes), mlx_load)


def contexts(net):
    return net.text_context(prompt()), net.history_context(random_history(8, 12))


@pytest.fixture
def traced(monkeypatch):
    """One entry for every time that a block's graph is made; compiled code makes it once."""
    calls, real = [], Block.__call__

    def call(self, streams, *rest, **options):
        calls.append(streams[-1].shape)
        return real(self, streams, *rest, **options)

    monkeypatch.setattr(Block, "__call__", call)
    return calls


def test_m22_three_stages_are_three_graphs(tmp_path, traced):
    """Whatever the timestep, and chunk after chunk: the history's tokens are inputs, not constants."""
    net = model(tmp_path).jit()
    text, _ = contexts(net)
    for t in (998.0, 385.0):
        history = net.history_context(random_history(8, 12))
        for size in STAGES:
            out = net.velocity(mx.zeros((1, 16, 9, *size)), t, text, history)
            assert out.shape == (1, 16, 9, *size) and out.dtype == mx.float32
    assert traced == [(1, 9 * h * w // 4, 48) for h, w in STAGES]


def test_only_what_changes_the_graph_makes_another(tmp_path, traced):
    net = model(tmp_path).jit()
    text, history = contexts(net)
    x = mx.zeros((1, 16, 9, 4, 6))
    for prompt_of_two in (text, net.text_context(prompt(used=(9,)))):
        for past in (None, history):
            net.velocity(x, 1.0, prompt_of_two, past)
            net.velocity(x, 2.0, prompt_of_two, past)
    assert len(traced) == 4


@pytest.mark.parametrize("where,compiled", [("cpu", False), ("metal", True)])
def test_steps_are_compiled_on_a_gpu(tmp_path, monkeypatch, where, compiled):
    """On a CPU it takes a C++ compiler and half a minute, and gains nothing."""
    monkeypatch.setattr(mlx_load, "kind", lambda device: where)
    monkeypatch.setattr(mlx_load, "_metal_limit", lambda: 2**30)
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: 0)
    assert (model(tmp_path).compiled is not None) is compiled


def test_a_stop_comes_before_every_compiled_step(tmp_path):
    net, asked = model(tmp_path).jit(), []
    net.on_block = lambda: asked.append(1)
    text, history = contexts(net)
    for count in (1, 2, 3):
        net.velocity(mx.zeros((1, 16, 9, 4, 6)), 1.0, text, history)
        assert len(asked) == count

    def stop():
        raise KeyboardInterrupt

    net.on_block = stop
    with pytest.raises(KeyboardInterrupt):
        net.velocity(mx.zeros((1, 16, 9, 4, 6)), 1.0, text, history)


def test_a_lora_gets_graphs_of_its_own(tmp_path, traced):
    """And the base keeps its own."""
    base = model(tmp_path, **{**LORA_SIZES, "num_layers": 2}).jit()
    file = files.read_lora(write_lora(tmp_path, peft(make_pairs())), SHAPES)
    compiled = base.compiled
    changed = mlx_lora.adapt(base, changes.read_changes([(file, Strength(1.0))], None, CONFIG, SHAPES), merge=False)
    assert base.compiled is compiled and changed.compiled not in (None, compiled)
    text, history = base.text_context(torch.ones(1, 4, 20)), base.history_context(random_history(8, 12))
    for net in (base, changed, base, changed):
        net.velocity(mx.zeros((1, 16, 9, 4, 6)), 1.0, text, history)
    assert len(traced) == 4, "two blocks, two graphs"


def test_m12_a_compiled_step_follows_its_weights(tmp_path):
    """They are inputs of its graph; here of one so small that a CPU's compiler is quick. Without that: uncompiled."""
    net = model(tmp_path)
    text, _ = contexts(net)
    net.forward = lambda x, *_: mx.tanh(x + net.proj_out.bias.sum())
    net.jit()
    if shutil.which("g++") is None:
        mx.disable_compile()
    try:
        for bias in (0.5, -0.25):
            net.proj_out.bias = mx.array([bias])
            got = net.velocity(mx.ones((1, 16, 1, 4, 6)), 711.0, text)
            assert np.allclose(np.array(got), np.tanh(1 + bias), atol=1e-6)
    finally:
        mx.enable_compile()


def test_a_compiled_model_is_forgotten_as_others_are(tmp_path):
    """Its graphs hold its weights as inputs, and nothing else holds them."""
    mlx_load.empty_cache()
    before = mx.get_active_memory()
    net = model(tmp_path, ffn_dim=20000).jit()
    text, history = contexts(net)
    net.velocity(mx.zeros((1, 16, 9, 4, 6)), 1.0, text, history)
    assert mx.get_active_memory() - before > 7e6
    del net, text, history
    mlx_load.empty_cache()
    gc.collect()
    assert mx.get_active_memory() - before < 1e6 and mx.get_cache_memory() == 0
