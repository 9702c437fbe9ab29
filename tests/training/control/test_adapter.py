"""Control adapters in training: nothing at first, what is saved is what inference reads, and a folder of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.control import levels, read_adapter
from helios_video.helios_core.drawn import draw_track, random_tracked
from helios_video.helios_core.training.captioned import EncodedClip
from helios_video.helios_core.training.control import (
    EXTRACTORS,
    ControlObjective,
    ControlPlan,
    TrainedAdapter,
    clips_of,
    find_pairs,
)
from helios_video.helios_core.training.control.adapter import TARGETS
from helios_video.helios_core.training.lora import PairLearner, find_layers
from helios_video.helios_core.training.objective import SeededDraws
from helios_video.helios_core.with_control import with_control
from support.clips import write
from support.control import latents, sampled


@pytest.fixture(scope="module")
def helios():
    return load(backend="torch", weight_dtype="fp32")


@pytest.fixture
def learner():
    """Pairs on a base of its own, as train_adapter puts them there."""
    base = load(backend="torch", weight_dtype="fp32")
    layers = find_layers(base.backend.shapes(base.config.transformer), TARGETS)
    return PairLearner(base, layers, 2, 2.0, checkpointing=False)


def trained(learner):
    adapter = TrainedAdapter(learner.helios.config.transformer, learner.begin())
    return learner.model, adapter


def random_clips(helios):
    draws = SeededDraws(0)
    pairs = [
        (EncodedClip(draws.randn(16, 18, 8, 8), draws.randn(16, 0, 8, 8), ("a red circle",)), draws.randn(16, 18, 8, 8))
    ]
    return clips_of(helios, pairs)


def test_it_begins_as_nothing_and_what_is_saved_is_what_was_trained(helios, learner, tmp_path):
    net, adapter = trained(learner)
    z = latents(helios)
    new = adapter.save(tmp_path / "new.safetensors", "content", "track")
    assert np.array_equal(sampled(with_control(helios, new, z)), sampled(helios))
    with torch.no_grad():
        for value in adapter.parameters():
            value.copy_((torch.randn_like(value) * 0.1).to(torch.bfloat16))
    file = read_adapter(adapter.save(tmp_path / "a.safetensors", "match", "mask"), helios.config.transformer)
    assert (file.policy, file.extractor, file.lora) == ("match", "mask", True)
    assert np.allclose(file.weight, adapter.weight.detach().numpy())
    under, history = with_control(helios, file.path, z, policy="content"), helios.history(64, 64)
    text, beside = helios.text("a red circle"), [adapter.tokens(x, torch.ones(1)) for x in levels(z, 3, "content")]
    parts = history.parts(9)._replace(control=tuple(beside))
    model = under.controls[0].changed(under.parts).ready("transformer", 64, 64)
    x = torch.randn(1, 16, 9, 4, 4)
    with torch.no_grad():
        ours = net(x, torch.tensor([500.0]), net.text_context(text), net.history_context(parts))
    got = model.velocity(x, 500.0, model.text_context(text), model.history_context(parts))
    assert torch.allclose(ours, got, atol=1e-4)


def test_a_loss_reaches_embedding_and_lora_alone_and_a_step_is_drawn_by_its_number(helios, learner):
    net, adapter = trained(learner)
    loss = ControlObjective(net, adapter, random_clips(helios), helios.config, "content", batch=1)
    pair = adapter.pairs.pair("blocks.0.attn1.to_q")
    torch.nn.init.normal_(pair.lora_B.weight, std=0.01)
    first = loss(3)
    first["loss"].backward()
    assert adapter.weight.grad.abs().max() > 0 and pair.lora_A.weight.grad is not None
    assert not any(p.grad is not None for n, p in net.named_parameters() if ".lora_" not in n)
    assert float(loss(3)["loss"].detach()) == float(first["loss"].detach()) != float(loss(4)["loss"].detach())


def test_without_control_a_sample_has_no_tokens(helios):
    adapter = TrainedAdapter(helios.config.transformer)
    torch.nn.init.ones_(adapter.bias)
    made = adapter.tokens(torch.randn(2, 16, 9, 8, 8), torch.tensor([1.0, 0.0]))
    assert made[0].abs().max() > 0 and not made[1].any()


def test_extractors_show_where_the_object_is():
    one = random_tracked(np.random.default_rng(0), 66, fitting=0.0)
    for name, extract in EXTRACTORS.items():
        made = extract(one.frames())
        assert made.shape == one.frames().shape and made.dtype == np.uint8, name
    y, x = np.mgrid[:64, :64] + 0.5
    weight = EXTRACTORS["tracks"](one.frames())[..., 0].astype(float)
    seen = np.stack([(weight * axis).sum((1, 2)) / weight.sum((1, 2)) for axis in (x, y)], axis=-1)
    assert np.median(np.linalg.norm(seen - one.centres, axis=1)) < 6
    assert draw_track(one.centres).max() == 255


def test_pairs_of_a_folder_and_what_is_wrong_with_them(tmp_path):
    clips, controls = tmp_path / "clips", tmp_path / "controls"
    clips.mkdir(), controls.mkdir()
    write(clips / "a.mp4", np.zeros((40, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="have no caption"):
        find_pairs(clips, controls, 33)
    (clips / "a.txt").write_text("a ball")
    with pytest.raises(ValueError, match="has no control video; wanted .*a.mp4"):
        find_pairs(clips, controls, 33)
    write(controls / "a.mp4", np.zeros((20, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="has 20 frames, its clip 40"):
        find_pairs(clips, controls, 33)
    write(controls / "a.mp4", np.zeros((33, 32, 32, 3), np.uint8))
    assert [pair.control.name for pair in find_pairs(clips, controls, 33)] == ["a.mp4"]
    assert find_pairs(clips, None, 33)[0].control is None
    with pytest.raises(ValueError, match="not a folder"):
        find_pairs(clips, tmp_path / "gone", 33)


def test_the_command_trains_on_a_folder_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "a.mp4", np.random.default_rng(0).integers(0, 255, (33, 64, 64, 3), np.uint8))
    (tmp_path / "clips" / "a.txt").write_text("a red circle")
    given = ["train", "control", "--data", "clips", "--rank", "1", "--batch", "1", "--extract", "edges"]
    assert main([*given, "--steps", "1"]) == 0
    assert main([*given, "--steps", "2"]) == 0
    file = read_adapter(tmp_path / "control.safetensors", load().config.transformer)
    assert (file.extractor, file.lora) == ("edges", True)
    assert main([*given, "--steps", "2", "--policy", "loud"]) == 2
    assert main(["train", "control", "--data", "gone"]) == 2
    assert ControlPlan().recipe().steps > 0
