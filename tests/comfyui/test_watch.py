"""What the web extension is sent by a real ComfyUI while it works on helios-tiny."""

from __future__ import annotations

from support.comfyui import NEEDED, listen, messages, nodes, seeded, twin, with_value

pytestmark = NEEDED


def run(server, prompt):
    """(drift, chunks): what came of each."""
    events, entry = listen(server, prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return events.of("helios-video.drift"), events.of("helios-video.chunk")


def test_in_a_chain_every_node_is_sent_its_chunk_and_the_pictures_can_be_fetched(server):
    prompt = seeded(11, steps="1,1,1")
    samplers, joiners = nodes(prompt, "DMDPyramidSample"), nodes(prompt, "ChunkConcat")
    prompt["900"] = {"class_type": "AntiDrift", "inputs": {"history": [samplers[0], 1], "policy": "off"}}
    prompt[samplers[1]]["inputs"]["history"] = ["900", 0]
    (drift,), chunks = run(server, prompt)
    assert drift["node"] == "900" and drift["chunk"] == 0 and drift["mean"] == 0 and not drift["found"]
    assert [chunk["node"] for chunk in chunks] == joiners and chunks[0]["jump"] is None
    assert all(chunk["jump"] > 0 and chunk["inside"] > 0 for chunk in chunks[1:])
    assert len({chunk["folder"] for chunk in chunks}) == 1
    for name in chunks[-1]["names"]:
        picture = server.get(f"/view?filename={name}.jpg&subfolder={chunks[-1]['folder']}&type=temp")
        assert picture[:2] == b"\xff\xd8"


def test_in_a_loop_the_users_own_nodes_are_sent_all_chunks(server):
    prompt = with_value(twin("long_video"), "DMDPyramidSample", steps="1,1,1")
    drift, chunks = run(server, with_value(prompt, "HeliosLoopStart", chunks=3))
    assert {point["node"] for point in drift} == set(nodes(prompt, "AntiDrift"))
    assert [point["chunk"] for point in drift] == [0, 1, 2]
    assert {chunk["node"] for chunk in chunks} == set(nodes(prompt, "ChunkConcat"))
    assert [len(chunk["names"]) for chunk in chunks] == [1, 2, 3]
