"""Finished chunks in a real ComfyUI, whatever its cache keeps: none is sampled or decoded twice, after a restart too.

What the networks do is counted, not which nodes run: ComfyUI may run a node again whose work the pack takes from disk.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_video.helios_core.join import video
from support.comfyui import COMFYUI, NEEDED, messages, saved, serving, with_value
from support.probed import PROBES, chunks, computed, long_video, number, probe, ran, small, succeeds
from support.wan import narrow_vae

pytestmark = NEEDED
MODES = {
    "default": (),
    "none": ("--cache-none",),
    "classic": ("--cache-classic",),
    "lru": ("--cache-lru", "100"),
}


@pytest.fixture(scope="module", params=MODES)
def server(request, tmp_path_factory):
    if request.param == "none" and not runs_loops_without_cache():
        pytest.skip("this ComfyUI's --cache-none fails where any node becomes others; the loop says so")
    with serving(tmp_path_factory.mktemp("comfyui"), PROBES, MODES[request.param]) as server:
        yield server


def runs_loops_without_cache() -> bool:
    return "DependencyAwareCache" not in Path(COMFYUI, "comfy_execution", "caching.py").read_text(encoding="utf-8")


@pytest.mark.skipif(not COMFYUI or runs_loops_without_cache(), reason="this ComfyUI runs loops with --cache-none")
def test_a_loop_that_cannot_run_without_a_cache_says_so(tmp_path):
    (tmp_path / "base").mkdir()
    with serving(tmp_path / "base", PROBES, MODES["none"]) as server:
        (error,) = messages(server.run(seeded(1)), "execution_error")
    assert error["node_type"] == "HeliosLoopStart" and "--cache-none" in error["exception_message"]


def seeded(seed: int, **changes) -> dict:
    return with_value(small(long_video(**changes)), "PrimitiveInt", value=seed)


def grows(server, prompt, count: int) -> list[str]:
    """What a video of so many chunks has the networks do; it is as long as it should be."""
    prompt[number(prompt, "HeliosLoopStart")]["inputs"]["chunks"] = count
    ran(server)
    entry = succeeds(server, prompt)
    assert video.probe(saved(server, entry)).frames == 33 * count
    return computed(ran(server))


def stopped_after_two(server, prompt) -> list[str]:
    """What a run does that is stopped before its third chunk. The probe notes, then waits; Stop comes meanwhile."""
    start = number(prompt, "HeliosLoopStart")
    prompt["92"] = probe([start, 1], "before", [start, 3], wait=1.0)
    with_value(prompt, "DMDPyramidSample", history=["92", 0])
    ran(server)
    queued = server.queue(prompt)
    server.wait(lambda: "before2" in (server.base / "probes.txt").read_text(), "the third chunk")
    server.post("/interrupt", {})
    assert messages(server.finish(queued), "execution_interrupted")
    return computed(ran(server))


def test_a_longer_video_samples_the_new_chunks_alone_after_a_restart_too(server):
    prompt, stopped = seeded(31), seeded(32, chunks=4)
    assert [grows(server, prompt, count) for count in (2, 3)] == [chunks(0, 1), chunks(2)]
    assert stopped_after_two(server, stopped) == chunks(0, 1)
    server.restart()
    assert grows(server, stopped, 4) == chunks(2, 3)
    assert [grows(server, prompt, count) for count in (4, 2)] == [chunks(3), []]


def test_a_stopped_run_goes_on_where_it_ended(server):
    prompt = seeded(33, chunks=4)
    assert stopped_after_two(server, prompt) == chunks(0, 1)
    assert grows(server, prompt, 4) == chunks(2, 3)


def test_another_joint_decodes_again_and_samples_nothing(server):
    prompt = seeded(34)
    assert grows(server, prompt, 2) == chunks(0, 1)
    assert grows(server, with_value(prompt, "ChunkConcat", boundary="none"), 2) == ["decode0", "decode1"]
    assert grows(server, with_value(prompt, "ChunkConcat", boundary="match"), 2) == []


def test_a_vae_of_comfyuis_own_loader_is_known_by_its_weights(server):
    folder = server.base / "models" / "vae"
    prompt = seeded(36)
    prompt["93"] = {"class_type": "VAELoader", "inputs": {"vae_name": narrow_vae(folder, 1)}}
    with_value(prompt, "ChunkConcat", decoder=["93", 0])
    assert [grows(server, prompt, count) for count in (2, 3)] == [chunks(0, 1), chunks(2)]
    server.restart()
    assert grows(server, prompt, 3) == []
    assert grows(server, with_value(prompt, "VAELoader", vae_name=narrow_vae(folder, 2)), 2) == ["decode0", "decode1"]


def test_a_minute_grows_by_the_new_chunk_alone(server):
    prompt = seeded(37)
    assert grows(server, prompt, 44) == chunks(*range(44))
    assert grows(server, prompt, 45) == chunks(44)
    server.restart()
    assert grows(server, prompt, 46) == chunks(45)
