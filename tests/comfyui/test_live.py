"""What a user sees and presses while a real ComfyUI works on helios-tiny, on the CPU: previews, bar, Stop, memory.

Figures are printed: pytest -s.
"""

from __future__ import annotations

import json
import re
import time

from support.comfyui import NEEDED, ended, listen, messages, nodes, resident, seeded, twin, with_value
from support.events import Events, text_of

pytestmark = NEEDED


def stopped(events) -> tuple[float, float]:
    """Seconds from Stop to the end, and what of them the server worked."""
    took = events.when("execution_interrupted") - events.pressed
    print(f"seconds from Stop to the end: {took:.2f}, of which worked {events.worked:.2f}")
    return took, events.worked


def first_step(events: Events) -> float:
    """Seconds from queueing to the first sampling step."""
    return events.when("text", lambda data: "step 1 of" in text_of(data)[1]) - events.began


def test_the_first_step_comes_soon_after_the_first_run(server):
    times = [first_step(listen(server, seeded(seed, steps="1,1,1"))[0]) for seed in (1, 2, 3)]
    print("seconds from queueing to the first step, three runs:", [round(t, 2) for t in times])
    assert min(times[1:]) < 2


def test_one_bar_goes_over_all_chunks_and_says_how_long(server):
    events, entry = listen(server, prompt := seeded(4, steps="8,8,8"))
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    bar = [(p["value"], p["max"]) for p in events.of("progress") if p["node"] in nodes(prompt, "DMDPyramidSample")]
    bar += [(p["value"], p["max"]) for p in events.of("progress") if p["node"] in nodes(prompt, "ChunkConcat")][-1:]
    assert {top for _, top in bar} == {400} and [v for v, _ in bar] == sorted(v for v, _ in bar) and bar[-1][0] == 400
    said = [text_of(data) for data in events.of("text")]
    words = [text for node, text in said if node in nodes(prompt, "DMDPyramidSample")]
    assert words[0] == "chunk 1 of 4, step 1 of 24" and words[-1].startswith("chunk 4 of 4, step 24 of 24")
    assert all(re.search(r", \d+:\d\d left$", text) for text in words[1:])


def test_previews_show_every_step_and_every_chunk_is_played_when_it_is_done(server):
    events, _ = listen(server, prompt := seeded(5, steps="8,8,8"))
    counts = events.counts()
    samplers, joiners = nodes(prompt, "DMDPyramidSample"), nodes(prompt, "ChunkConcat")
    print("events of a run of 4 chunks:", dict(counts))
    assert counts["picture"] >= 4 * 24 and all(data[4:6] == b"\xff\xd8" for data in events.of("picture"))
    ran = [e["node"] for e in events.of("executing") if e["node"] in (*samplers, *joiners)]
    assert ran == [n for pair in zip(samplers, joiners, strict=True) for n in pair], (
        "decoded before the next is sampled"
    )
    shown = {e["node"]: e["output"] for e in events.of("executed")}
    for i, node in enumerate(joiners):
        (file,) = shown[node]["images"]
        assert shown[node]["animated"] == [True] and file["type"] == "temp" and file["filename"] == f"chunk_000{i}.mp4"
        query = f"filename={file['filename']}&subfolder={file['subfolder']}&type=temp"
        assert b"ftyp" in server.get(f"/view?{query}")[:16]


def test_stop_ends_a_long_chunk_within_a_second_and_what_was_finished_is_kept(server):
    prompt = seeded(6, steps="60,60,60")
    third = nodes(prompt, "DMDPyramidSample")[2]
    events, entry = listen(
        server, prompt, until=lambda e: any(p["node"] == third and p["value"] > 205 for p in e.of("progress"))
    )
    assert messages(entry, "execution_interrupted")
    assert min(stopped(events)) < 1
    chunks = sorted((server.base / "temp" / "helios").glob("*/chunk_000*.mp4"), key=lambda p: p.stat().st_mtime)
    assert [path.name for path in chunks[-2:]] == ["chunk_0000.mp4", "chunk_0001.mp4"]
    again, entry = listen(server, prompt)
    assert entry["status"]["status_str"] == "success"
    cached = {n for content in messages(entry, "execution_cached") for n in content["nodes"]}
    done = nodes(prompt, "DMDPyramidSample")[:2] + nodes(prompt, "ChunkConcat")[:2]
    assert set(done) <= cached and third not in cached
    bar = [p["value"] for p in again.of("progress")]
    assert bar[0] >= 200, "it goes on where it was"


def test_stop_inside_a_step_of_many(server):
    """In the text encoder, the model and the VAE alike: Stop is asked for between any two layers."""
    events, entry = listen(
        server, seeded(7, steps="200,200,200"), until=lambda e: any(p["value"] > 2 for p in e.of("progress"))
    )
    assert messages(entry, "execution_interrupted") and min(stopped(events)) < 1


def test_memory_stays_flat_over_runs(server):
    sizes = []
    for seed in range(10, 17):
        entry = server.run(seeded(seed, steps="1,1,1"))
        assert entry["status"]["status_str"] == "success"
        sizes.append(resident(server))
    print("MB resident after each of 7 runs:", sizes)
    assert max(sizes[2:]) - sizes[1] < 100


def test_memory_stays_flat_over_a_minute_of_video(server):
    prompt = with_value(twin("long_video"), "DMDPyramidSample", steps="1,1,1")
    (loop,) = nodes(prompt, "HeliosLoopStart")
    count, sizes = prompt[loop]["inputs"]["chunks"], []
    with Events(server.port, "test") as events:
        server.post("/prompt", {"prompt": prompt, "client_id": "test"})
        while not ended(events) or len(events.of("helios-video.chunk")) > len(sizes):
            if len(events.of("helios-video.chunk")) > len(sizes):
                sizes.append(resident(server))
            time.sleep(0.1)
    print(f"MB resident after each of {count} chunks:", sizes)
    assert events.of("execution_success") and len(sizes) == count > 40
    assert max(sizes) - sizes[2] < 100
    said = [text_of(data)[1] for data in events.of("text")]
    assert said[0].startswith("chunk 1 of 44") and said[-1].startswith("decoding chunk 44 of 44")


def test_comfyui_unloads_our_models_and_loads_them_again(server):
    """What its menu does, and any other model that needs the room."""
    server.run(seeded(20, steps="1,1,1"))
    loads = lambda: (server.base / "log.txt").read_text().count("Requested to load HeliosModel")  # noqa: E731
    before = loads()
    for seed in range(21, 25):  # a busy machine takes its time over what it was asked
        server.post("/free", {"unload_models": True})
        time.sleep(2)
        assert server.run(seeded(seed, steps="1,1,1"))["status"]["status_str"] == "success"
        if loads() > before:
            break
    assert loads() == before + 1
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(2)
    assert json.loads(server.get("/queue"))["queue_running"] == []
    assert server.run(seeded(21, steps="1,1,1"))["status"]["status_str"] == "success"
