"""What a transformer keeps of prompts and sizes: made once, the right one, gone when weights change. Named: M12, V2."""

import gc
import weakref

import pytest
import torch
from helios_video.helios_core.backends.torch import offload
from helios_video.helios_core.backends.torch.transformer import PROMPTS, SAMPLED, TABLES
from support.loras import adapted, make_model, make_pairs, peft, write
from support.transformer import prompt, random_history

LAYERS = 2
KEYS = [f"blocks.{i}.attn2.{name}" for i in range(LAYERS) for name in ("to_k", "to_v")]
QUERIES = [f"blocks.{i}.attn2.to_q" for i in range(LAYERS)]


def chunk(model, *prompts, size=(4, 6), history=(8, 12), seed=0):
    """One chunk's evaluations as the pipeline makes them: every context anew, of a copy of what it was given."""
    torch.manual_seed(seed)
    x, parts = torch.randn(1, 16, 9, *size), random_history(*history)
    with torch.inference_mode():
        context = model.history_context(parts)
        return [model.velocity(x, 500.0, model.text_context(text.clone()), context) for text in prompts]


@pytest.fixture
def prompts():
    torch.manual_seed(5)
    return [prompt(used=(n,)) for n in (12, 20, 9)]


def count(model):
    """The layers that make keys, as they are called."""
    calls = []
    for block in model.blocks:
        block.attn2.to_k.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_keys_and_values_are_made_once_per_prompt(prompts):
    model = make_model()
    calls = count(model)
    for _ in range(3):
        chunk(model, prompts[0])
    assert len(calls) == LAYERS
    for _ in range(3):
        chunk(model, prompts[0], prompts[1])
    assert len(calls) == 2 * LAYERS


def test_two_prompts_stay_whatever_the_third_is(prompts):
    """A schedule that returns within the bound finds what it left; with guidance the negative stays."""
    model = make_model()
    calls = count(model)
    first, second, third = prompts
    for text, made in ((first, 1), (second, 2), (first, 2), (third, 3), (first, 3), (second, 4)):
        chunk(model, text)
        assert len(calls) == made * LAYERS
    for positive, made in ((first, 1), (third, 2), (first, 3)):
        model.forget() if made == 1 else None
        before = len(calls)
        chunk(model, positive, second)
        assert len(calls) - before == (2 if made == 1 else 1) * LAYERS
    assert len(model.prompts.kept) == PROMPTS == 2


def test_a_chunk_after_a_change_of_prompt_is_that_of_a_fresh_model(prompts):
    model = make_model()
    for text in (prompts[0], prompts[1], prompts[0], prompts[2], prompts[1]):
        for size in ((4, 6), (8, 12)):
            assert torch.equal(*chunk(model, text, size=size), *chunk(make_model(), text, size=size))


@pytest.mark.parametrize("stream", [False, True])
def test_only_keys_and_values_are_fetched_for_a_prompt_and_only_once(stream, prompts, monkeypatch):
    model, fetched = make_model(), []
    real = offload.Slot.fetch
    monkeypatch.setattr(offload.Slot, "fetch", lambda self, ts: (fetched.extend(ts), real(self, ts)))
    if stream:
        offload.stream_blocks(model, "cpu")
    with torch.inference_mode():
        for _ in range(3):
            model.text_context(prompts[0])
    layers = [model.get_submodule(name) for name in KEYS] if stream else []
    assert sum(t.nbytes for t in fetched) == sum(layer.weight.nbytes for layer in layers)
    fetched.clear()
    chunk(model, prompts[0])
    used = [block.get_submodule(part) for block in model.blocks for part in SAMPLED] if stream else []
    assert sum(t.nbytes for t in fetched) == sum(t.nbytes for part in used for t in offload.matrices(part))
    assert torch.equal(*chunk(model, prompts[0]), *chunk(make_model(), prompts[0]))


def change_in_place(layer):
    layer.weight.add_(0.1)


def change_by_a_new_one(layer):
    layer.weight = torch.nn.Parameter(layer.weight + 0.1, requires_grad=False)


def change_by_other_memory(layer):
    layer.weight.data = layer.weight + 0.1


CHANGES = [change_in_place, change_by_a_new_one, change_by_other_memory]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [*KEYS[:2], "condition_embedder.text_embedder.linear_1", "blocks.1.attn2.norm_k"])
def test_m12_changed_weights_are_seen(change, name, prompts):
    model, other = make_model(), make_model()
    before = chunk(model, prompts[0])
    for net in (model, other):
        with torch.no_grad():
            change(net.get_submodule(name))
    assert torch.equal(*chunk(model, prompts[0]), *chunk(other, prompts[0]))
    assert not torch.equal(*chunk(model, prompts[0]), *before)


def test_m12_loaded_weights_are_seen(prompts):
    model, other = make_model(), make_model()
    for p in other.parameters():
        p.data *= 1.1
    chunk(model, prompts[0])
    model.load_state_dict(other.state_dict())
    assert torch.equal(*chunk(model, prompts[0]), *chunk(other, prompts[0]))


@pytest.mark.parametrize("merge", [False, True])
def test_a_lora_shares_what_it_leaves_as_it_is_and_nothing_else(merge, tmp_path, prompts):
    base = make_model()
    calls = count(base)
    same, other = (
        adapted(base, [(write(tmp_path / kind, peft(make_pairs(layers, size=1.0))), 1.0)], merge=merge)
        for kind, layers in (("queries", QUERIES), ("keys", KEYS))
    )
    fresh = [adapted(make_model(), [(tmp_path / "keys" / "lora.safetensors", 1.0)], merge=merge)]
    plain = chunk(base, prompts[0])
    assert not torch.equal(*chunk(same, prompts[0]), *plain)
    assert len(calls) == LAYERS, "its keys are the base's"
    for _ in range(2):
        assert torch.equal(*chunk(other, prompts[0]), *chunk(fresh[0], prompts[0]))
        assert torch.equal(*chunk(base, prompts[0]), *plain)


def test_what_is_kept_does_not_keep_weights(prompts):
    model = make_model()
    chunk(model, prompts[0])
    layer = model.blocks[0].attn2.to_k
    old = weakref.ref(layer.weight)
    layer.weight = torch.nn.Parameter(layer.weight * 2, requires_grad=False)
    gc.collect()
    assert old() is None and model.prompts.kept


@pytest.mark.parametrize("streamed", [False, True])
def test_a_model_that_moves_takes_nothing_along(streamed, prompts):
    model = make_model()
    chunk(model, prompts[0])
    assert model.prompts.kept and model.tables.kept
    offload.place(model, "cpu", streamed=streamed)
    assert not model.prompts.kept and not model.tables.kept
    assert torch.equal(*chunk(model, prompts[0]), *chunk(make_model(), prompts[0]))


def test_trained_weights_and_gradients_are_never_kept_for(prompts):
    model = make_model(fuse=False)
    with torch.no_grad():
        model.text_context(prompts[0])
    assert not model.prompts.kept
    model.requires_grad_(True)
    chunk(model, prompts[0])
    assert not model.prompts.kept
    context = model.history_context(random_history(8, 12))
    out = model(torch.randn(1, 16, 9, 4, 6), torch.tensor([500.0]), model.text_context(prompts[0]), context)
    out.square().mean().backward()
    assert model.blocks[0].attn2.to_k.weight.grad.abs().sum() > 0, "after a sampling that kept rotations"


def test_rotations_are_made_once_per_size_and_frame_numbers(prompts, monkeypatch):
    from helios_video.helios_core.backends import rope

    made, real = [], rope.rotations
    monkeypatch.setattr(rope, "rotations", lambda *a: made.append(a[:2]) or real(*a))
    model = make_model()
    for seed in range(3):
        for size in ((2, 4), (4, 6), (8, 12)):
            chunk(model, prompts[0], size=size, seed=seed)
    assert len(made) == 3
    torch.manual_seed(0)
    with torch.inference_mode():
        other = model.history_context(random_history(8, 12, sizes=(8, 2, 1)))
        none = model.rotations(None, (9, 4, 6))
        assert len(made) == 4 and len(none) == 9 * 4 * 6
        model.rotations(other, (9, 4, 6))
    assert len(made) == 5
    for n in range(20):
        model.rotations(None, (1, 1, 1 + n))
    assert len(model.tables.kept) == TABLES
