"""Loops in a real ComfyUI: what runs, what is not done twice, where errors are shown, and how memory grows.

Of a loop's body ComfyUI keeps what its cache pleases; what the networks do is counted (see test_kept.py).
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, messages, resident, saved, twin, with_value
from support.probed import PROBES as PROBES
from support.probed import chunks, computed, long_video, number, probe, ran, succeeds

pytestmark = NEEDED


def test_a_loop_runs_to_a_file_and_a_longer_one_computes_the_new_chunks(server):
    ran(server)
    entry = succeeds(server, long_video())
    assert computed(ran(server)) == chunks(0, 1, 2), "a chunk is decoded before the next one is sampled"
    assert video.probe(saved(server, entry)).frames == 99
    entry = succeeds(server, long_video(chunks=4))
    assert computed(ran(server)) == chunks(3)
    assert video.probe(saved(server, entry)).frames == 132
    entry = succeeds(server, long_video(chunks=2))
    assert computed(ran(server)) == [] and video.probe(saved(server, entry)).frames == 66


def test_another_joint_joins_again_and_samples_nothing(server):
    succeeds(server, long_video())
    ran(server)
    succeeds(server, with_value(long_video(), "ChunkConcat", boundary="none"))
    assert computed(ran(server)) == ["decode0", "decode1", "decode2"]


def test_an_error_is_shown_on_the_users_node_and_finished_chunks_are_kept(server):
    prompt = with_value(long_video(), "PrimitiveInt", value=11)
    start = number(prompt, "HeliosLoopStart")
    prompt["92"] = probe([start, 1], "before", [start, 3], fails_at=2)
    with_value(prompt, "DMDPyramidSample", history=["92", 0])
    ran(server)
    (error,) = messages(server.run(prompt), "execution_error")
    assert (error["node_id"], error["node_type"]) == ("92", "Probe") and "before 2 fails" in error["exception_message"]
    assert computed(ran(server)) == chunks(0, 1)
    with_value(prompt, "PrimitiveInt", value=12)
    sampler = number(prompt, "DMDPyramidSample")
    prompt[sampler]["inputs"] |= {"history": [start, 1], "steps": "1,1"}
    (error,) = messages(server.run(prompt), "execution_error")
    assert (error["node_id"], error["node_type"]) == (sampler, "DMDPyramidSample")


def test_a_batch_into_one_video_is_refused_before_it_is_sampled(server):
    prompt = with_value(with_value(long_video(), "PrimitiveInt", value=13), "HistoryMemory", batch_size=2)
    ran(server)
    (error,) = messages(server.run(prompt), "execution_error")
    assert error["node_type"] == "HistoryMemory" and "Latent From Batch" in error["exception_message"]
    start, sampler = (number(prompt, kind) for kind in ("HeliosLoopStart", "DMDPyramidSample"))
    two = {"class_type": "HistoryMemory", "inputs": dict(prompt[number(prompt, "HistoryMemory")]["inputs"])}
    prompt["94"] = probe([start, 1], "before", [start, 3])  # behind it the sampler alone knows
    prompt[number(prompt, "HistoryMemory")] = two
    prompt[sampler]["inputs"]["history"] = ["94", 0]
    (error,) = messages(server.run(prompt), "execution_error")
    assert error["node_id"] == sampler and "Latent From Batch" in error["exception_message"]
    assert computed(ran(server)) == []


def test_stop_keeps_the_finished_chunks(server):
    prompt = with_value(long_video(), "PrimitiveInt", value=21)
    prompt["90"]["inputs"]["wait"] = 3.0
    ran(server)
    queued = server.queue(prompt)
    server.wait(lambda: "sampled1" in (server.base / "probes.txt").read_text(), "the second chunk")
    server.post("/interrupt", {})
    assert messages(server.finish(queued), "execution_interrupted")
    done = computed(ran(server))
    assert done[:3] == ["sample0", "decode0", "sample1"] and "sample2" not in done
    succeeds(server, prompt)
    assert done + computed(ran(server)) == chunks(0, 1, 2), "the second run goes on where the first one ended"


def test_what_shows_something_in_the_body_is_shown_on_the_users_node_per_chunk(server):
    prompt = long_video()
    prompt["93"] = {"class_type": "PreviewAny", "inputs": {"source": ["90", 1]}}
    entry = succeeds(server, prompt)
    shown = [i for i, facts in entry["meta"].items() if facts["display_node"] == "93"]
    end = number(prompt, "HeliosLoopEnd")
    assert sorted(shown) == [f"{end}.{k}.93" for k in (1, 2, 3)]


def nested(outer=2, inner=3) -> dict:
    """A loop in a loop, of probes alone; the history goes by."""
    loader = next(node["inputs"] for node in twin("long_video").values() if node["class_type"] == "HeliosLoader")
    kinds = {
        "1": ("HeliosLoader", loader),
        "2": ("HistoryMemory", {"model": ["1", 0], "width": 0, "height": 0}),
        "3": ("PrimitiveString", {"value": "s "}),
        "10": ("HeliosLoopStart", {"chunks": outer, "history": ["2", 0], "value_1": ["3", 0]}),
        "20": ("HeliosLoopStart", {"chunks": inner, "history": ["10", 1], "value_1": ["11", 1]}),
        "22": ("PreviewAny", {"source": ["21", 1]}),
        "24": ("HeliosLoopEnd", {"loop": ["20", 0], "history": ["20", 1], "value_1": ["21", 1]}),
        "14": ("HeliosLoopEnd", {"loop": ["10", 0], "history": ["24", 0], "value_1": ["24", 3]}),
        "15": ("PreviewAny", {"source": ["14", 3]}),
    }
    prompt = {i: {"class_type": kind, "inputs": dict(inputs)} for i, (kind, inputs) in kinds.items()}
    return prompt | {"11": probe(["10", 4], "o", ["10", 3]), "21": probe(["20", 4], "i", ["20", 3])}


def test_a_loop_in_a_loop(server):
    ran(server)
    entry = succeeds(server, nested())
    words = ["o0", "i0", "i1", "i2", "o1", "i0", "i1", "i2"]
    assert ran(server) == words and entry["outputs"]["15"]["text"] == [" ".join(["s", *words, ""])]
    assert len([i for i, facts in entry["meta"].items() if facts["display_node"] == "22"]) == 6
    entry = succeeds(server, nested(outer=3))
    more = ["o2", "i0", "i1", "i2"]
    assert entry["outputs"]["15"]["text"] == [" ".join(["s", *words, *more, ""])]
    assert ran(server) in (more, [*words, *more]), "probes run again where ComfyUI keeps no bodies"
    wrong = nested()
    wrong["21"]["inputs"] |= {"fails_at": 1, "text": "j"}
    (error,) = messages(server.run(wrong), "execution_error")
    assert error["node_id"] == "21"


def test_a_broken_loop_says_so_before_it_runs(server):
    ran(server)
    prompt = long_video()
    end = number(prompt, "HeliosLoopEnd")
    prompt[end]["inputs"]["value_2"] = ["90", 0]
    prompt["94"] = probe([end, 0], "behind", ["90", 0])
    prompt["95"] = {"class_type": "PreviewAny", "inputs": {"source": ["94", 0]}}
    (error,) = messages(server.run(prompt), "execution_error")
    assert "inside a loop, past its" in error["exception_message"] and ran(server) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_a_minute_of_video_takes_little_memory(server):
    """The published steps of helios-tiny, 44 chunks; also a further run of 4 chunks, which must not add to it."""
    prompt = with_value(long_video(chunks=44), "DMDPyramidSample", steps="auto")
    ran(server)
    queued, grown = server.queue(prompt), {}
    while not json.loads(server.get(f"/history/{queued}")).get(queued):
        grown[len([w for w in (server.base / "probes.txt").read_text().split() if "joined" in w])] = resident(server)
        time.sleep(0.1)
    entry = server.finish(queued)
    assert entry["status"]["status_str"] == "success" and video.probe(saved(server, entry)).frames == 44 * 33
    print("resident MB after chunk:", {k: round(mb) for k, mb in grown.items() if k % 4 == 3}, round(resident(server)))
    assert max(grown[k] for k in grown if k > 3) - grown[3] < 100
