"""Pairs beside layers of every form: nothing at the start, gradients for them alone, gone without a trace."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends import torch as backend
from helios_video.helios_core.backends.torch.offload import stream_blocks
from helios_video.helios_core.backends.torch.quant import quantise_model
from helios_video.helios_core.config import ModelConfig, TransformerConfig
from helios_video.helios_core.training.lora import attach, count, detach, find_layers, without
from helios_video.helios_core.training.lora.checkpointed import checkpoint_blocks
from helios_video.helios_core.training.lora.run import blocks_of
from support.transformer import SIZES, pair, prompt, random_history

CONFIG = TransformerConfig(**SIZES)
SHAPES = backend.shapes(CONFIG)
T = torch.tensor([300.0])


def built(kind=None):
    _, ours = pair()
    ours.requires_grad_(False)
    if kind is not None:
        quantise_model(ours, kind)
    return ours.fuse()


def velocity(model, seed=1):
    torch.manual_seed(seed)
    x, parts, text = torch.randn(1, 16, 9, 8, 8), random_history(8, 8), prompt()
    return model(x, T, model.text_context(text), model.history_context(parts))


def moved(made):
    torch.manual_seed(5)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


@pytest.mark.parametrize("kind", [None, "int8", "int4"])
def test_new_pairs_add_nothing_and_go_without_a_trace(kind):
    model = built(kind)
    with torch.no_grad():
        before = velocity(model)
        made = attach(model, find_layers(SHAPES, "self,cross,feed"), SHAPES, rank=3, alpha=3)
        torch.testing.assert_close(velocity(model), before)
        moved(made)
        assert float((velocity(model) - before).abs().max()) > 1e-3
        with without(model):
            torch.testing.assert_close(velocity(model), before)
        detach(model)
        torch.testing.assert_close(velocity(model), before)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_gradients_flow_through_a_quantised_base_as_through_its_widened_weights(kind):
    found = []
    for frozen in (True, False):
        model = built(kind)
        made = moved(attach(model, find_layers(SHAPES, "cross"), SHAPES, rank=2, alpha=2))
        if not frozen:
            for module in model.modules():
                if hasattr(module, "frozen"):
                    module.frozen = False
        velocity(model).square().mean().backward()
        found.append([p.grad for p in made.parameters()])
    for ours, plain in zip(*found):
        torch.testing.assert_close(ours, plain)
    assert any(grad.any() for grad in found[0])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_flow_through_streamed_blocks(checkpointed):
    """Their matrices take turns in two places: what a layer saw is not there any more on the way back."""
    found = []
    for streamed in (True, False):
        model = built()
        if streamed:
            stream_blocks(model, "cpu")
        made = moved(attach(model, find_layers(SHAPES, "self,cross,feed"), SHAPES, rank=2, alpha=2))
        if checkpointed:
            checkpoint_blocks(model)
        found.append(gradients(model, made))
    assert_alike(*found)


def gradients(model, made) -> list:
    velocity(model).square().mean().backward()
    return [p.grad for p in made.parameters()]


def assert_alike(found, wanted) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_checkpointed_blocks_have_the_same_gradients():
    found = []
    for checkpointed in (True, False):
        model = built()
        made = moved(attach(model, find_layers(SHAPES, "self,feed"), SHAPES, rank=2, alpha=2))
        if checkpointed:
            checkpoint_blocks(model)
        found.append(gradients(model, made))
    assert_alike(*found)


def test_targets_and_blocks_choose_layers_and_unknown_ones_are_named():
    assert len(find_layers(SHAPES, "self")) == 8 and len(find_layers(SHAPES, "self,cross,feed")) == 20
    assert find_layers(SHAPES, "attn2.to_k", frozenset({1})) == ["blocks.1.attn2.to_k"]
    assert find_layers(SHAPES, "text") == [f"condition_embedder.text_embedder.linear_{i}" for i in (1, 2)]
    with pytest.raises(ValueError, match="'nowhere' names no layer; wanted self, cross, feed, text"):
        find_layers(SHAPES, "self,nowhere")
    assert blocks_of("0-2, 5", 6) == {0, 1, 2, 5} and blocks_of("", 6) is None
    for text in ("6", "3-1", "x"):
        with pytest.raises(ValueError, match="wanted numbers or ranges from 0 to 5"):
            blocks_of(text, 6)


def test_only_pairs_are_saved_and_their_scale_goes_into_b():
    model = built()
    made = moved(attach(model, ["blocks.0.attn1.to_q"], SHAPES, rank=2, alpha=8))
    assert list(made.state_dict()) == [f"transformer.blocks.0.attn1.to_q.lora_{s}.weight" for s in "AB"]
    tensors, state = made.tensors(), made.state_dict()
    for key in state:
        torch.testing.assert_close(tensors[key], state[key] * (4 if "lora_B" in key else 1))


def test_the_published_model_fits_the_cards_it_should():
    """Counted at full width and depth: 24 GB with an int4 base, 40 GB with bf16 blocks streamed."""
    how = dict(width=640, height=384, rank=32, targets="self,cross,feed")
    int4 = count(ModelConfig(), weight_dtype="int4", **how)
    streamed = count(ModelConfig(), weight_dtype="bf16", streamed=True, **how)
    assert int4.total < 24 * 2**30 and streamed.total < 40e9
    whole = count(ModelConfig(), weight_dtype="bf16", **how)
    assert whole.weights > 28e9 and whole.work == pytest.approx(int4.work, rel=0.1)
    assert "GB of the GPU's memory" in int4.describe()
