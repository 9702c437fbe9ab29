"""long_video.json: a loop of 44 chunks. Written out it is the chain it stands for; its first chunks run."""

import json
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.join import video
from helios_video.helios_core.measure.joints import frame_statistics, joints
from helios_video.helios_core.workflow.unroll import unroll
from helios_video.nodes import place

TWIN = Path(pack.__file__).parent / "workflows" / "api" / "long_video.json"
CHUNKS = 44
STEPS = ["--set", "DMDPyramidSample.steps=1,1,1"]


@pytest.fixture
def prompt():
    return json.loads(TWIN.read_text(encoding="utf-8"))


def named(prompt):
    """Title -> (id, inputs)."""
    return {node["_meta"]["title"]: (number, node["inputs"]) for number, node in prompt.items()}


def chain(prompt, count):
    """The same workflow without its loop: a sampler, an AntiDrift and a ChunkConcat per chunk, wired by hand."""
    nodes = named(prompt)
    loop = {"HeliosLoopStart", "HeliosLoopEnd", "Chunk", "Remember", "Join"}
    graph = {number: node for number, node in prompt.items() if node["_meta"]["title"] not in loop}
    history, clip = [nodes["Size and memory"][0], 0], {}
    for k in range(1, count + 1):
        sampler, drift, join = f"1{k:02}", f"2{k:02}", f"3{k:02}"
        given = {
            sampler: ("DMDPyramidSample", {**nodes["Chunk"][1], "history": history}),
            drift: ("AntiDrift", {**nodes["Remember"][1], "history": [sampler, 1]}),
            join: ("ChunkConcat", {**nodes["Join"][1], "latent": [sampler, 0]}),
        }
        given[join][1].pop("clip")
        given[join][1].update(clip)
        graph |= {i: {"class_type": kind, "inputs": inputs} for i, (kind, inputs) in given.items()}
        history, clip = [drift, 0], {"clip": [join, 0]}
    named_here = {node["_meta"]["title"]: node["inputs"] for node in graph.values() if "_meta" in node}
    named_here["SaveVideo"]["video"] = [join, 1]
    named_here["Drift in the last chunk"]["source"] = [drift, 2]
    return graph


def test_every_chunk_is_sampled_remembered_and_joined_in_turn(prompt):
    """Link by link, as the chain would be."""
    nodes = named(prompt)
    end, start = nodes["HeliosLoopEnd"][0], nodes["HeliosLoopStart"][1]
    assert start["chunks"] == CHUNKS
    copies, (_, _, last, report, *_) = unroll(prompt, end, CHUNKS, pack.NODE_CLASS_MAPPINGS)
    sampler, drift, join = (nodes[name][0] for name in ("Chunk", "Remember", "Join"))
    assert len(copies) == 3 * CHUNKS + 2 * (CHUNKS - 1)
    history, clip = start["history"], None
    for k in range(1, CHUNKS + 1):
        place = f"{end}.{k}."
        sampled, kept, joined = (copies[place + node]["inputs"] for node in (sampler, drift, join))
        assert (sampled["history"], joined.get("clip")) == (history, clip)
        assert kept["history"] == [place + sampler, 1] and joined["latent"] == [place + sampler, 0]
        assert sampled["seed"] == kept["seed"] == [nodes["Seed"][0], 0]
        assert sampled["positive"] == [nodes["Prompt"][0], 0]
        assert (sampled["steps"], kept["policy"], joined["boundary"]) == ("auto", "anchor", "match")
        history, clip = [f"{place}history", 0], [f"{place}clip", 1]
        if k < CHUNKS:
            assert copies[history[0]]["becomes"][0] == [place + drift, 0]
            assert copies[clip[0]]["becomes"][1] == [place + join, 0]
    assert (last, report) == ([place + join, 1], [place + drift, 2])


def test_the_bar_knows_which_chunk_it_is(prompt):
    nodes = named(prompt)
    end, sampler, join = (nodes[name][0] for name in ("HeliosLoopEnd", "Chunk", "Join"))
    graph = {**prompt, **unroll(prompt, end, 5, pack.NODE_CLASS_MAPPINGS)[0]}
    kinds, wires = {i: n["class_type"] for i, n in graph.items()}, {i: place.sources(n) for i, n in graph.items()}
    layout = place.Layout(kinds, wires)
    for k in range(5):
        assert layout.chunk_of(f"{end}.{k + 1}.{sampler}") == (k, 5)
        assert layout.chunk_of(f"{end}.{k + 1}.{join}") == (k, 5)


def run(path, folder, *options):
    assert main(["run", str(path), "--output-dir", str(folder), *options]) == 0
    (made,) = (folder / "video").glob("*.mp4")
    return video.read_frames(made)


def test_the_loop_makes_the_same_video_as_the_chain(prompt, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELIOS_CACHE", "off")
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(chain(prompt, 3)))
    by_hand = run(path, tmp_path / "chain", *STEPS)
    said = [line for line in capsys.readouterr().out.splitlines() if "Drift" in line]
    looped = run(TWIN, tmp_path / "loop", *STEPS, "--set", "HeliosLoopStart.chunks=3")
    assert looped.shape == (99, 64, 64, 3) and np.array_equal(looped, by_hand)
    assert "chunk 3" in said[0] and said == [line for line in capsys.readouterr().out.splitlines() if "Drift" in line]


def test_the_first_chunks_run(tmp_path, capsys, monkeypatch):
    """Two chunks with four steps per stage, boundary match and none: the joint is less visible, all else is equal."""
    monkeypatch.setenv("HELIOS_CACHE", "off")
    frames = {}
    for policy in ("match", "none"):
        options = ["--set", "DMDPyramidSample.steps=4,4,4", "--set", f"ChunkConcat.boundary={policy}"]
        frames[policy] = run(TWIN, tmp_path / policy, *options, "--set", "HeliosLoopStart.chunks=2")
        assert "chunk 2" in capsys.readouterr().out
    assert frames["match"].shape == frames["none"].shape == (66, 64, 64, 3)
    assert np.array_equal(frames["match"][:33], frames["none"][:33])
    later = abs(frames["match"][40:66].astype(int) - frames["none"][40:66]).mean()
    assert later < 2, "past the ramp only what H.264 makes of it differs"
    jump = {policy: joints(frame_statistics(f))["luma"]["jump"] for policy, f in frames.items()}
    assert jump["match"] < jump["none"] / 2
