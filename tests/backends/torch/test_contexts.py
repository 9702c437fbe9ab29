"""What is made once of a prompt, a history and the weights, and what follows them. Named: M5, M10, M12, V2."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helios_video.helios_core.backends.torch.layers import sinusoid
from support.transformer import PARITY, SIZES, error, pair, prompt, random_history, run_oracle, run_ours


def test_padding_is_folded():
    _, ours = pair()
    keys, values, bias = ours.text_context(prompt(tokens=512, used=(12,)))
    assert keys[0].shape[2] == values[0].shape[2] == 13
    assert float(bias[..., -1]) == pytest.approx(np.log(500), rel=1e-6) and (bias[..., :-1] == 0).all()


def test_a_history_serves_all_stages_and_steps():
    """The same contexts at three sizes and two timesteps, in any order, equal fresh ones: nothing goes stale."""
    _, ours = pair(8, fused=True)
    text, parts = prompt(), random_history(16, 24)
    with torch.inference_mode():
        kept = ours.text_context(text), ours.history_context(parts)
        for size in ((4, 6), (8, 12), (16, 24), (4, 6)):
            x = torch.randn(1, 16, 9, *size)
            for t in (900.0, 100.0):
                got = ours.velocity(x, t, *kept)
                assert error(got, run_ours(ours, x, t, text, parts)) <= 1e-6


def test_m5_history_is_full_resolution_at_every_stage():
    """384 x 640: 240 long, 240 mid and 1920 short term tokens, whatever the size of the current latents."""
    _, ours = pair(num_layers=1)
    context = ours.history_context(random_history(48, 80, frames=1))
    assert context.tokens.shape == (1, 2400, 48)
    text = ours.text_context(prompt())
    for h, w in ((12, 20), (24, 40)):
        ours.velocity(torch.randn(1, 16, 1, h, w), 1.0, text, context)
        assert context.tokens.shape[1] == 2400


def test_m10_the_historys_timestep_is_sinusoid_of_zero():
    """128 ones, 128 zeros into the MLP, not zeros."""
    assert sinusoid(torch.zeros(1), 256).tolist() == [[1.0] * 128 + [0.0] * 128]
    oracle, ours = pair(12)
    with torch.inference_mode():
        _, vectors, _ = oracle.condition_embedder(torch.zeros(1), prompt())
        got = ours.history_context(random_history(8, 12)).modulations
        zeros = ours.condition_embedder.time_embedder(torch.zeros(1, SIZES["freq_dim"]))
        zeros = ours.condition_embedder.time_proj(F.silu(zeros))
    for block, (attention, feed) in zip(oracle.blocks, got, strict=True):
        parts = [attention.shift, attention.scale - 1, attention.gate, feed.shift, feed.scale - 1, feed.gate]
        parts = torch.cat(parts, dim=1)
        assert torch.allclose(parts, block.scale_shift_table + vectors.unflatten(-1, (6, -1)), atol=1e-5)
        assert not torch.allclose(parts, block.scale_shift_table + zeros.unflatten(-1, (6, -1)), atol=1e-2)


@pytest.mark.parametrize("t", [0, 1, 174, 998.5, 999])
def test_timestep_embedding_is_that_of_diffusers(t):
    from diffusers.models.embeddings import Timesteps

    t = torch.tensor([float(t)])
    want = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(t)
    assert torch.allclose(sinusoid(t, 256), want, atol=1e-4)


def test_m12_nothing_of_old_weights_is_kept():
    """Run, load other weights, run again: as a model that never had the old ones. Then a change in place, as LoRA."""
    _, ours = pair(13)
    oracle, fresh = pair(14)
    x, text, parts = torch.randn(1, 16, 9, 4, 6), prompt(), random_history(8, 12)
    run_ours(ours, x, 500, text, parts)
    ours.load_state_dict(fresh.state_dict())
    want = run_ours(fresh, x, 500, text, parts)
    assert torch.equal(run_ours(ours, x, 500, text, parts), want)
    ours.fuse()
    run_ours(ours, x, 500, text, parts)
    for model in (ours, oracle):
        model.condition_embedder.time_proj.weight.data += 0.1
        model.blocks[1].ffn.net[2].weight.data += 0.1
        model.blocks[0].attn2.to_k.weight.data += 0.1
    changed = run_ours(ours, x, 500, text, parts)
    assert error(changed, run_oracle(oracle, x, 500, text, parts)) <= PARITY and error(changed, want) > 1e-3


def test_v2_another_prompt_at_the_same_address():
    """Keys and values belong to a context, not to the memory that the prompt once lay in."""
    _, ours = pair(16)
    x, first, second = torch.randn(1, 16, 9, 4, 6), prompt(), prompt()
    buffer = first.clone()
    before = run_ours(ours, x, 711, buffer)
    buffer.copy_(second)
    after = run_ours(ours, x, 711, buffer)
    assert torch.equal(before, run_ours(ours, x, 711, first)) and torch.equal(after, run_ours(ours, x, 711, second))
    assert error(after, before) > 1e-3
