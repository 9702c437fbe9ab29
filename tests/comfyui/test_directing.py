"""A run directed while it goes, in a real ComfyUI: edits, refusals, a pause, an early end, and what is saved of it."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, listen, saved, work
from support.directed import BLUE, RED, WAIT, ask, shown
from support.directed import loop as directed
from support.events import Events, text_of
from support.probed import succeeds

pytestmark = NEEDED
PROBES = WAIT
WORKFLOW = {"nodes": [{"id": 5, "type": "HeliosPromptSchedule", "widgets_values": [f"0: {RED}"]}]}


def test_a_run_is_directed_and_what_was_used_is_saved(server):
    prompt, node = directed(f"0: {RED}", chunks=20, wait=1.5)
    workflow = json.loads(json.dumps(WORKFLOW).replace('"id": 5', f'"id": {node}'))
    with Events(server.port, "other") as events:
        queued = server.queue(prompt, workflow)
        place = f"runs/{queued}/{node}"

        def at(chunk: int):
            return server.wait(lambda: ask(server, place)[1].get("begun", 0) > chunk, f"chunk {chunk}")

        at(1)
        assert ask(server, "runs")[1] == {"runs": [{"run": queued, "nodes": [node]}]}
        status, said = ask(server, f"{place}/edit", {"chunk": 3, "prompt": BLUE, "seed": 9})
        assert status == 200 and said["text"] == f"0: {RED}\n3 [seed 9]: {BLUE}"
        status, said = ask(server, f"{place}/edit", {"chunk": 1, "seed": 4})
        assert status == 409 and "needs a retake" in said["error"]
        assert ask(server, f"{place}/score", {"text": "junk"})[0] == 409
        assert ask(server, f"{place}/score", {"text": f"0: {RED}", "base": "old"})[0] == 409
        assert ask(server, f"{place}/edit", {"chunk": 3, "image": ["../x.png", 1]})[0] == 409
        at(3)
        assert ask(server, f"{place}/pause", {})[1]["paused"]
        begun = ask(server, place)[1]["begun"]
        server.wait(lambda: ask(server, place)[1]["done"] == begun, "the chunk in work")
        time.sleep(3)
        assert ask(server, place)[1]["begun"] == begun, "it waits"
        assert not ask(server, f"{place}/go_on", {})[1]["paused"]
        at(begun)
        status, said = ask(server, f"{place}/stop", {})
        assert status == 200 and said["text"].endswith("[end]:")
        entry = server.finish(queued)
    assert entry["status"]["status_str"] == "success"
    made, told = saved(server, entry), events.of("helios-video.score")
    frames = video.read_frames(made)
    count = len(frames) // 33
    assert count == said["begun"] and shown(frames) == [("red", "circle")] * 3 + [("blue", "square")] * (count - 3)
    assert told[-1]["ended"] and {event["prompt"] for event in told} == {queued}
    marks = video.read_metadata(made)
    assert marks["prompt"][node]["inputs"]["text"] == said["text"] == marks["workflow"]["nodes"][0]["widgets_values"][0]
    assert entry["prompt"][2][node]["inputs"]["text"] == said["text"]
    plain, _ = directed(f"0: {RED}", chunks=4)
    again = video.read_frames(saved(server, succeeds(server, plain)))
    assert shown(again) == [("red", "circle")] * 4, "ComfyUI's cache has not what the edits made"
    check_made_again(server, marks["prompt"], frames)


def check_made_again(server, prompt: dict, frames) -> None:
    """Nobody at the page, and nothing kept: the prompt that the file is marked with gives the same pixels."""
    server.stop()
    for kept in server.base.rglob("chunks"):
        shutil.rmtree(kept)
    server.begin()
    server.up()
    assert np.array_equal(video.read_frames(saved(server, succeeds(server, prompt))), frames)


def test_what_is_no_run_and_no_request_of_ours_is_refused(server):
    assert ask(server, "runs/none/5")[0] == 404
    assert ask(server, "runs/none/5/pause", {}, kind="text/plain")[0] == 415
    assert ask(server, "score/write", {"text": "0: a", "chunk": 1, "path": "/etc"})[0] == 400
    assert ask(server, "score/write", {"text": "0: a", "chunk": "1"})[0] == 400
    assert ask(server, "score/write", {"text": "0: a", "chunk": 1, "seed": 3})[1] == {"text": "0: a\n1 [seed 3]:"}
    assert ask(server, "score/read", {"text": "0: a; 1 [end]:"})[1]["end"] == 1
    assert ask(server, "runs", Origin="http://elsewhere.example")[0] == 403
    assert ask(server, "openapi.json")[1]["paths"]["/helios/runs/{run}/{node}/stop"]["post"]["operationId"] == "stop"


def test_a_stop_while_it_pauses_ends_the_run(server):
    prompt, node = directed(f"0 [seed 77]: {RED}", chunks=3, wait=1.0)
    queued = server.queue(prompt)
    place = f"runs/{queued}/{node}"
    server.wait(lambda: ask(server, place)[1].get("begun", 0) > 0, "the first chunk")
    ask(server, f"{place}/pause", {})
    server.wait(lambda: ask(server, place)[1]["done"] == ask(server, place)[1]["begun"], "the pause")
    server.post("/interrupt", {})
    assert server.finish(queued)["status"]["status_str"] == "error"
    assert ask(server, place)[0] == 404


def test_what_the_page_is_told_does_not_grow_with_the_chunks(server):
    prompt, _ = directed(f"0 [seed 78]: {RED}\n2 [end]:", chunks=40)
    events, entry = listen(server, prompt)
    assert entry["status"]["status_str"] == "success"
    assert len(events.of("progress_state")[-1]["nodes"]) < 30, "of what the loop became only the last chunk is told"


def begun(events: Events) -> list[str]:
    """Chunks that were sampled, as the bar names them; one of the store has its last step alone."""
    said = [text_of(data)[1].partition(", ") for data in events.of("text")]
    return [chunk for chunk, _, step in said if step.startswith("step 1 of")]


def test_a_retake_of_chunk_40_of_44_begins_at_once_and_samples_four(server):
    """Figures are printed: pytest -s. The clock also counts what else the machine does."""
    server.finish(server.queue(directed(f"0 [seed 79]: {RED}", chunks=44)[0]))
    times = []
    for seed in (80, 81, 82):
        prompt, _ = directed(f"0 [seed 79]: {RED}\n40 [seed {seed}]:", chunks=44)
        with Events(server.port, "test") as events:
            began, before = time.monotonic(), work(server)
            queued = server.post("/prompt", {"prompt": prompt, "client_id": "test"})["prompt_id"]
            while not begun(events):
                time.sleep(0.02)
            times.append((round(time.monotonic() - began, 2), round(work(server) - before, 2)))
            server.finish(queued)
        assert begun(events) == [f"chunk {k} of 44" for k in (41, 42, 43, 44)]
    print("seconds by the clock and of processor time to the first step of chunk 40:", times)
    assert min(worked for _, worked in times) < 1
