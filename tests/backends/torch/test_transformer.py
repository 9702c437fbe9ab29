"""The transformer against diffusers' HeliosTransformer3DModel on tiny random weights, every parameter perturbed.

Parity: M1, M3, M23. Its precision: test_precision.py; what is made once: test_contexts.py.
"""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_helios import HeliosAttnProcessor
from support.transformer import PARITY, error, pair, prompt, random_history, run_oracle, run_ours


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("amplify", [False, True])
@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("b", [1, 2])
def test_m1_parity(fused, amplify, history, b):
    oracle, ours = pair(is_amplify_history=amplify, fused=fused)
    x, text = torch.randn(b, 16, 9, 6, 10), prompt(b)
    parts = random_history(12, 20, b) if history else None
    want = run_oracle(oracle, x, 711, text, parts)
    got = run_ours(ours, x, 711, text, parts)
    assert got.dtype == torch.float32 and got.shape == x.shape
    assert error(got, want) <= PARITY
    if b == 1:
        assert F.cosine_similarity(got.flatten(), want.flatten(), dim=0) > 0.9999


@pytest.mark.parametrize(
    "full,current", [((10, 14), (10, 14)), ((14, 10), (14, 10)), ((12, 20), (6, 10)), ((8, 12), (2, 6))]
)
def test_m3_parity_on_odd_patch_grids(full, current):
    """5 x 7 patches: the mid and long patches and their rotations are padded by repetition."""
    oracle, ours = pair(1, fused=True)
    x, text, parts = torch.randn(1, 16, 9, *current), prompt(), random_history(*full)
    assert error(run_ours(ours, x, 385, text, parts), run_oracle(oracle, x, 385, text, parts)) <= PARITY


@pytest.mark.parametrize("fused", [False, True])
def test_parity_with_many_tokens(fused):
    """Enough of them for every fast path: 864 current tokens after 460 of history."""
    oracle, ours = pair(19, fused=fused, is_amplify_history=True)
    x, text, parts = torch.randn(1, 16, 9, 16, 24), prompt(), random_history(16, 24)
    assert error(run_ours(ours, x, 385, text, parts), run_oracle(oracle, x, 385, text, parts)) <= PARITY


@pytest.mark.parametrize("used", [(), (31,), (32,), (0,), (5, 32), (0, 7), (31, 30)])
def test_parity_with_any_padding(used):
    """Padding rows are folded into one key; rows of a batch may be padded by different lengths."""
    oracle, ours = pair(2)
    b = max(1, len(used))
    x, text = torch.randn(b, 16, 2, 4, 6), prompt(b, used=used)
    assert error(run_ours(ours, x, 10, text), run_oracle(oracle, x, 10, text)) <= PARITY


def test_zeros_within_a_prompt_are_no_padding():
    oracle, ours = pair(3)
    x, text = torch.randn(1, 16, 2, 4, 6), prompt(used=(20,))
    text[:, 3:6] = 0
    assert error(run_ours(ours, x, 10, text), run_oracle(oracle, x, 10, text)) <= PARITY


@pytest.mark.parametrize("history", [False, True])
def test_parity_with_a_timestep_per_sample(history):
    oracle, ours = pair(4, is_amplify_history=True)
    x, text, t = torch.randn(3, 16, 3, 4, 6), prompt(3), torch.tensor([999, 420, 3])
    parts = random_history(8, 12, 3, frames=3) if history else None
    assert error(run_ours(ours, x, t, text, parts), run_oracle(oracle, x, t, text, parts)) <= PARITY


def test_one_prompt_serves_a_batch():
    _, ours = pair(5)
    x, text, parts = torch.randn(2, 16, 3, 4, 6), prompt(), random_history(8, 12, 2, frames=3)
    want = run_ours(ours, x, 500, text.expand(2, -1, -1), parts)
    assert torch.allclose(run_ours(ours, x, 500, text, parts), want, atol=1e-5)


@pytest.mark.parametrize(
    "options", [dict(history_scale_mode="scalar", is_amplify_history=True), dict(cross_attn_norm=False)]
)
def test_parity_of_rare_configs(options):
    oracle, ours = pair(6, fused=True, **options)
    x, text, parts = torch.randn(1, 16, 2, 4, 6), prompt(), random_history(8, 12, frames=2)
    assert error(run_ours(ours, x, 711, text, parts), run_oracle(oracle, x, 711, text, parts)) <= PARITY


def test_parity_of_other_history_sizes():
    for sizes, keep in (((16, 2, 1), False), ((8, 4, 2), True), ((5, 3, 1), True)):
        oracle, ours = pair(7)
        parts = random_history(8, 12, sizes=sizes, keep_first_frame=keep, frames=2)
        x, text = torch.randn(1, 16, 2, 4, 6), prompt()
        assert error(run_ours(ours, x, 711, text, parts), run_oracle(oracle, x, 711, text, parts)) <= PARITY


def test_inputs_are_not_modified():
    _, ours = pair(9, fused=True)
    x, text, parts = torch.randn(1, 16, 9, 4, 6), prompt(), random_history(8, 12)
    kept = [v.clone() for v in (x, text, *parts[:3])]
    run_ours(ours, x, 500, text, parts)
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, text, *parts[:3]), strict=True))


class Restricted(HeliosAttnProcessor):
    """History tokens attend to history only, as in weights that were not released."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, mask=None, rotary_emb=None, current=None):
        if encoder_hidden_states is None:
            n = hidden_states.shape[1]
            mask = torch.ones(n, n, dtype=torch.bool)
            mask[: n - current, n - current :] = False
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, rotary_emb, current)


def test_m23_history_tokens_see_current_tokens():
    oracle, ours = pair(15)
    x, text, parts = torch.randn(1, 16, 9, 4, 6), prompt(), random_history(8, 12)
    got = run_ours(ours, x, 711, text, parts)
    assert error(got, run_oracle(oracle, x, 711, text, parts)) <= PARITY
    for block in oracle.blocks:
        block.attn1.set_processor(Restricted())
    assert error(got, run_oracle(oracle, x, 711, text, parts)) > 1e-3


def test_stop_is_asked_for_before_every_block():
    _, ours = pair(17, num_layers=5)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    ran = []
    for block in ours.blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    ours.on_block = stop
    with pytest.raises(InterruptedError):
        run_ours(ours, torch.randn(1, 16, 2, 4, 6), 1, prompt())
    assert len(ran) == 2


def test_gradients_flow_when_training():
    """The training uses this very module, unfused; fusing and caching are for inference."""
    _, ours = pair(18)
    ours.train()
    parts = random_history(8, 12)
    out = ours(
        torch.randn(1, 16, 9, 4, 6), torch.tensor([500.0]), ours.text_context(prompt()), ours.history_context(parts)
    )
    out.square().mean().backward()
    idle = [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
