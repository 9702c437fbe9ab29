"""long_video.json: 44 chunks in one chain, checked link by link; its first chunks run with helios-tiny."""

import json
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core import video
from helios_video.helios_core.cli import main
from helios_video.helios_core.study.joints import frame_statistics, joints

TWIN = Path(pack.__file__).parent / "workflows" / "api" / "long_video.json"
CHUNKS = 44


@pytest.fixture
def prompt():
    return json.loads(TWIN.read_text(encoding="utf-8"))


def named(prompt):
    """Title -> (id, inputs)."""
    return {node["_meta"]["title"]: (number, node["inputs"]) for number, node in prompt.items()}


def test_every_chunk_is_sampled_remembered_and_joined_in_turn(prompt):
    nodes = named(prompt)
    kinds = [node["class_type"] for node in prompt.values()]
    assert all(kinds.count(kind) == CHUNKS for kind in ("DMDPyramidSample", "AntiDrift", "ChunkConcat"))
    loader = next(number for number, node in prompt.items() if node["class_type"] == "HeliosLoader")
    seed = [nodes["Seed"][0], 0]
    history, clip = [nodes["Size and memory"][0], 0], None
    for k in range(1, CHUNKS + 1):
        (sampler, sampled), (drift, kept), (join, joined) = (nodes[f"{n} {k}"] for n in ("Chunk", "Remember", "Join"))
        assert sampled["history"] == history and sampled["seed"] == kept["seed"] == seed
        assert sampled["positive"] == [nodes["Prompt"][0], 0] and sampled["model"] == [loader, 0]
        assert kept["history"] == [sampler, 1]
        assert joined["latent"] == [sampler, 0] and joined["decoder"] == [loader, 2] and joined.get("clip") == clip
        assert (sampled["steps"], kept["policy"], joined["boundary"]) == ("auto", "anchor", "match")
        history, clip = [drift, 0], [join, 0]
    assert nodes["SaveVideo"][1]["video"] == [clip[0], 1]


def first_chunks(prompt, count, path):
    """The same graph, saved and reported from chunk `count`: what lies behind it does not run."""
    nodes = named(prompt)
    nodes["SaveVideo"][1]["video"] = [nodes[f"Join {count}"][0], 1]
    nodes["Drift in the last chunk"][1]["source"] = [nodes[f"Remember {count}"][0], 2]
    path.write_text(json.dumps(prompt))
    return path


def test_the_first_chunks_run(prompt, tmp_path, capsys, monkeypatch):
    """Two chunks with four steps per stage, boundary match and none: the joint is less visible, all else is equal."""
    monkeypatch.setenv("HELIOS_CACHE", "off")
    file = first_chunks(prompt, 2, tmp_path / "short.json")
    frames = {}
    for policy in ("match", "none"):
        options = ["--set", "DMDPyramidSample.steps=4,4,4", "--set", f"ChunkConcat.boundary={policy}"]
        assert main(["run", str(file), "--output-dir", str(tmp_path / policy), *options]) == 0
        assert "chunk 2" in capsys.readouterr().out
        (made,) = (tmp_path / policy / "video").glob("*.mp4")
        frames[policy] = video.read_frames(made)
    assert frames["match"].shape == frames["none"].shape == (66, 64, 64, 3)
    assert np.array_equal(frames["match"][:33], frames["none"][:33])
    later = abs(frames["match"][40:66].astype(int) - frames["none"][40:66]).mean()
    assert later < 2, "past the ramp only what H.264 makes of it differs"
    jump = {policy: joints(frame_statistics(f))["luma"]["jump"] for policy, f in frames.items()}
    assert jump["match"] < jump["none"] / 2
