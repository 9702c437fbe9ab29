"""What the MLX transformer keeps of prompts and sizes; the torch twin's tests say more. Named: M12, V2."""

import threading

import numpy as np
import pytest
import torch
from support.loras import CONFIG, SHAPES, make_pairs, peft
from support.loras import write as write_lora
from support.mlx import pair, run
from support.transformer import prompt, random_history

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends.mlx import lora  # noqa: E402
from helios_video.helios_core.backends.mlx.layers import Attention  # noqa: E402
from helios_video.helios_core.lora import changes, files  # noqa: E402
from helios_video.helios_core.lora.strength import Strength  # noqa: E402

LAYERS = 2


@pytest.fixture
def calls(monkeypatch):
    """The layers that make keys and values, as they are called."""
    found, real = [], Attention.keys_values
    monkeypatch.setattr(Attention, "keys_values", lambda self, text: found.append(1) or real(self, text))
    return found


def test_keys_and_values_are_made_once_per_prompt(tmp_path, calls):
    _, model = pair(tmp_path)
    texts = [prompt(used=(n,)) for n in (12, 20, 9)]
    x, parts = torch.randn(1, 16, 9, 4, 6), random_history(8, 12)
    for i, made in ((0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
        got = run(model, x, 500.0, texts[i].clone(), parts)
        assert len(calls) == made * LAYERS
        fresh = pair(tmp_path)[1]
        assert np.array_equal(got, run(fresh, x, 500.0, texts[i], parts))
        del calls[made * LAYERS :]


def test_a_lora_shares_what_it_leaves_as_it_is_and_nothing_else(tmp_path, calls):
    _, base = pair(tmp_path)
    x, text, parts = torch.randn(1, 16, 9, 4, 6), prompt(), random_history(8, 12)
    plain = run(base, x, 500.0, text, parts)
    for name, made in (("to_q", 0), ("to_k", LAYERS)):
        pairs = make_pairs([f"blocks.{i}.attn2.{name}" for i in range(LAYERS)], size=1.0)
        file = files.read_lora(write_lora(tmp_path, peft(pairs)), SHAPES)
        found = changes.read_changes([(file, Strength(1.0))], None, CONFIG, SHAPES)
        own = lora.adapt(base, found, merge=False)
        calls.clear()
        got = run(own, x, 500.0, text, parts)
        assert len(calls) == made and not np.array_equal(got, plain)
        assert np.array_equal(run(lora.adapt(pair(tmp_path)[1], found, merge=False), x, 500.0, text, parts), got)
        assert np.array_equal(run(base, x, 500.0, text, parts), plain)


def test_what_is_kept_serves_another_thread(tmp_path):
    """Of a prompt that no step was computed with yet."""
    _, model = pair(tmp_path)
    x, text, parts, found = torch.randn(1, 16, 9, 4, 6), prompt(), random_history(8, 12), []
    thread = threading.Thread(target=lambda: found.append(model.text_context(text)))
    thread.start()
    thread.join()
    assert model.text_context(text) is found[0]
    assert np.array_equal(run(model, x, 500.0, text, parts), run(pair(tmp_path)[1], x, 500.0, text, parts))


def test_what_a_trace_kept_serves_outside_it(tmp_path):
    """Rotations are constants of a graph, not parts of one."""
    _, model = pair(tmp_path)
    text, history = model.text_context(prompt()), model.history_context(random_history(8, 12))
    x = mx.zeros((1, 16, 9, 4, 6))
    mx.compile(lambda x: model.velocity(x, 500.0, text, history))(x)
    got = model.velocity(x, 500.0, text, history)
    model.forget()
    assert np.array_equal(np.asarray(got), np.asarray(model.velocity(x, 500.0, text, history)))
