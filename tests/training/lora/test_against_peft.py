"""A step's gradients are PEFT's on diffusers' transformer; the file is read by diffusers' loader, and by ours."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends import torch as backend
from helios_video.helios_core.backends.torch.lora import adapt
from helios_video.helios_core.config import ScheduleConfig, TransformerConfig
from helios_video.helios_core.history import History
from helios_video.helios_core.lora import read_changes, read_lora, read_strength
from helios_video.helios_core.training.files import save
from helios_video.helios_core.training.lora import attach, find_layers
from helios_video.helios_core.training.objective import SeededDraws, flow_loss
from support.transformer import pair as twins
from support.transformer import run_oracle

peft = pytest.importorskip("peft")
SCHEDULE = ScheduleConfig(scheduler_type="euler")
ALPHA, RANK, FRAMES = 6.0, 4, 3
TARGETS = "self,cross,feed,text"


@pytest.fixture
def pair():
    """Diffusers' transformer with PEFT's pairs, ours with the same; those pairs, the layers, the shapes."""
    oracle, ours = twins()
    oracle.requires_grad_(False)
    ours.requires_grad_(False).fuse()
    shapes = backend.shapes(TransformerConfig.from_dict(dict(oracle.config)))
    layers = find_layers(shapes, TARGETS)
    oracle.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers))
    made = attach(ours, layers, shapes, rank=RANK, alpha=ALPHA)
    rng = torch.Generator().manual_seed(3)
    for layer in layers:
        theirs = oracle.get_submodule(layer)
        for side, ours_side in (("lora_A", made.pair(layer).lora_A), ("lora_B", made.pair(layer).lora_B)):
            value = torch.randn(ours_side.weight.shape, generator=rng) * 0.2
            getattr(theirs, side)["default"].weight.data.copy_(value)
            ours_side.weight.data.copy_(value)
    return oracle, ours, made, layers, shapes


def draw(batch=2):
    rng = torch.Generator().manual_seed(0)
    z = lambda *shape: torch.randn(shape, generator=rng)  # noqa: E731
    chunk, history = z(batch, 16, FRAMES, 16, 16), History(z(batch, 16, 19, 16, 16), z(batch, 16, 1, 16, 16))
    return chunk, history, z(batch, 12, 20)


def losses(oracle, ours, stage):
    chunk, history, text = draw()
    parts = history.parts(FRAMES)
    words, past = ours.text_context(text), ours.history_context(parts)
    mine = flow_loss(lambda x, t: ours(x, t, words, past), SCHEDULE, stage, chunk, SeededDraws(stage))
    theirs = flow_loss(
        lambda x, t: run_oracle.__wrapped__(oracle, x, t, text, parts), SCHEDULE, stage, chunk, SeededDraws(stage)
    )
    return mine, theirs


@pytest.mark.parametrize("stage", range(3))
def test_the_gradient_of_a_step_is_that_of_peft(pair, stage):
    oracle, ours, made, layers, _ = pair
    mine, theirs = losses(oracle, ours, stage)
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    mine.backward()
    theirs.backward()
    largest = max(float(p.grad.abs().max()) for p in made.parameters())
    for layer in layers:
        for side in ("lora_A", "lora_B"):
            mine = getattr(made.pair(layer), side).weight.grad
            theirs = getattr(oracle.get_submodule(layer), side)["default"].weight.grad
            if theirs is None:  # the last block's history goes nowhere in ours either
                assert mine is None or not mine.any()
                continue
            assert float((mine - theirs).abs().max()) < 1e-5 * max(1.0, largest), (layer, side)


def test_the_file_is_read_by_diffusers_and_by_ours_with_one_result(pair, tmp_path):
    oracle, ours, made, layers, shapes = pair
    file = save(made.tensors(), tmp_path / "learnt.safetensors", {"made": "here"})
    chunk, history, text = draw(1)
    parts = history.parts(FRAMES)
    t = torch.tensor([500.0])
    with torch.no_grad():
        trained = ours(chunk, t, ours.text_context(text), ours.history_context(parts))
        theirs, fresh = twins()
        fresh.requires_grad_(False).fuse()
        theirs.load_lora_adapter(str(file), prefix="transformer")
        by_diffusers = run_oracle(theirs, chunk, t, text, parts)
        changes = read_changes([(read_lora(file, shapes), read_strength(1.0))], None, fresh.config, shapes)
        loaded = adapt(fresh, changes, merge=False)
        by_ours = loaded(chunk, t, loaded.text_context(text), loaded.history_context(parts))
    scale = float(trained.abs().max())
    assert float((by_diffusers - trained).abs().max()) < 1e-5 * max(1.0, scale)
    assert float((by_ours - trained).abs().max()) < 1e-5 * max(1.0, scale)
    with torch.no_grad():
        plain = run_oracle(twins()[0], chunk, t, text, parts)
    assert float((plain - trained).abs().max()) > 1e-3
