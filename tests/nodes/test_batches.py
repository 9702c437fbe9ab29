"""A batch that goes into one ChunkConcat is refused before anything is sampled, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helios_video.helios_core.workflow.context import Run, running
from helios_video.nodes import batches
from support.comfyui import ROOT, twin, with_value
from support.nodes import NODES, make_history, sample


def wired(kind: str, prompt: dict):
    """Inside, the first node of a kind runs, of that workflow."""
    run = Run(prompt, Path("."), Path("."), lambda _: None, NODES)
    run.node = next(node for node, entry in prompt.items() if entry["class_type"] == kind)
    return running(run)


def through(prompt: dict, kind: str) -> dict:
    """The workflow with another node before its ChunkConcat's latent."""
    for entry in [e for e in prompt.values() if e["class_type"] == "ChunkConcat"]:
        prompt["900"] = {"class_type": kind, "inputs": {"samples": entry["inputs"]["latent"]}}
        entry["inputs"]["latent"] = ["900", 0]
    return prompt


@pytest.mark.parametrize("name", ["text_to_video", "long_video", "image_to_video"])
@pytest.mark.parametrize("kind", ["HistoryMemory", "DMDPyramidSample"])
def test_a_batch_is_refused_where_it_reaches_a_joint_as_it_is(name, kind):
    with wired(kind, twin(name)):
        batches.check_batch(1, "history")
        with pytest.raises(ValueError, match=r"batch of 2 .* ChunkConcat \(node \d+\).* Latent From Batch"):
            batches.check_batch(2, "history")
    with wired(kind, through(twin(name), "LatentFromBatch")):
        batches.check_batch(2, "history")


def test_through_a_loops_values_too():
    prompt = twin("long_video")
    ids = {entry["class_type"]: node for node, entry in prompt.items()}
    joint, end = prompt[ids["ChunkConcat"]]["inputs"], prompt[ids["HeliosLoopEnd"]]["inputs"]
    end["value_2"], joint["latent"] = joint["latent"], [ids["HeliosLoopEnd"], 4]
    joint.pop("clip"), end.pop("clip"), end.pop("video")
    with wired("DMDPyramidSample", prompt), pytest.raises(ValueError, match="a batch of 3"):
        batches.check_batch(3, "history")
    joint["latent"] = [ids["HeliosLoopEnd"], 5]
    with wired("DMDPyramidSample", prompt):
        batches.check_batch(3, "history")


def test_the_sampler_samples_none_of_it_and_history_memory_makes_none(fake_helios, monkeypatch):
    two = make_history(fake_helios, batch_size=2)
    latent, _ = sample(fake_helios, two)
    assert latent["samples"].shape[0] == 2, "outside a workflow nobody knows where it goes"
    monkeypatch.setattr(type(fake_helios), "sample", lambda *a, **k: pytest.fail("sampled"))
    with wired("DMDPyramidSample", twin("text_to_video")), pytest.raises(ValueError, match="history: a batch of 2"):
        sample(fake_helios, two)
    with wired("HistoryMemory", twin("text_to_video")), pytest.raises(ValueError, match="batch_size: a batch of 2"):
        make_history(fake_helios, batch_size=2)


def test_every_workflow_of_the_pack_takes_one_video():
    """All of them would be refused a batch, so that none is sampled for nothing."""
    for path in (ROOT / "workflows" / "api").glob("*.json"):
        prompt = with_value(json.loads(path.read_text(encoding="utf-8")), "HistoryMemory", batch_size=2)
        kinds = [entry["class_type"] for entry in prompt.values()]
        if "ChunkConcat" in kinds and "DMDPyramidSample" in kinds and "HistoryMemory" in kinds:
            node = next(n for n, entry in prompt.items() if entry["class_type"] == "HistoryMemory")
            whole = all("latent" in e["inputs"] for e in prompt.values() if e["class_type"] == "ChunkConcat")
            assert bool(batches.joint_of(prompt, node)) == whole, path.name
