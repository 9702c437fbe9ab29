"""The verbs on a run without a server: their table, their answers, and what is written back."""

from __future__ import annotations

import json
import re
from threading import Lock
from types import SimpleNamespace

import pytest
from helios_video.nodes import host, routes, runs

TEXT = "0: a; 4: b"
VERBS = {verb.name: verb for verb in routes.verbs()}


@pytest.fixture
def queue(monkeypatch):
    """ComfyUI's queue with one run in work, and what was sent to its listeners."""
    graph = {
        "5": {"class_type": "HeliosPromptSchedule", "inputs": {"text": TEXT, "text_encoder": ["2", 1]}},
        "6": {"class_type": "HeliosPromptSchedule", "inputs": {"text": ["3", 0]}},
        "2": {"class_type": "HeliosLoader", "inputs": {}},
    }
    item = (1, "run", graph, {"extra_pnginfo": {"workflow": workflow()}}, [])
    sent = []
    server = SimpleNamespace(
        prompt_queue=SimpleNamespace(currently_running={0: item}, mutex=Lock()),
        send_sync=lambda kind, data: sent.append((kind, data)),
    )
    monkeypatch.setattr(runs, "server", lambda: server)
    for name in ("_SCORES", "_EDITED", "_COUNTED"):
        getattr(runs, name).clear()
    return SimpleNamespace(item=item, sent=sent)


def workflow() -> dict:
    inner = {"id": "uuid", "nodes": [{"id": 5, "widgets_values": [TEXT]}]}
    return {
        "nodes": [{"id": 5, "widgets_values": [TEXT]}, {"id": 7, "type": "uuid"}],
        "definitions": {"subgraphs": [inner]},
    }


def ask(name: str, run: str = "run", node: str = "5", **body) -> tuple[int, dict]:
    status, found = routes.answer(VERBS[name], {"run": run, "node": node}, json.dumps(body).encode())
    return status, json.loads(json.dumps(found))


def test_a_run_is_found_and_directed(queue):
    assert ask("runs") == (200, {"runs": [{"run": "run", "nodes": ["5", "6"]}]})
    assert ask("status")[1]["text"] == TEXT
    status, stands = ask("edit", chunk=2, prompt="c", seed=7, image=None)
    assert status == 200 and stands["text"] == "0: a\n2 [seed 7]: c; 4: b"
    assert ask("score", text="0: z")[1]["text"] == "0: z"
    assert [ask(name)[1]["paused"] for name in ("pause", "go_on")] == [True, False]
    kinds = {kind for kind, _ in queue.sent}
    assert kinds == {"helios-video.score"} and queue.sent[-1][1]["prompt"] == "run" and queue.sent[-1][1]["node"] == "5"


@pytest.mark.parametrize(
    ("name", "where", "body", "status", "says"),
    [
        ("status", {"run": "other"}, {}, 404, "no run 'other' is in work"),
        ("status", {"node": "2"}, {}, 404, "the run has no schedule node '2'; it has 5, 6"),
        ("status", {"node": "6"}, {}, 404, "comes over a wire"),
        ("score", {}, {"text": "junk"}, 409, "does not begin with a chunk"),
        ("score", {}, {"text": "0: a; 1 [image ../x.png 1]:"}, 409, "without '..'"),
        ("score", {}, {"text": "0: z", "base": "0: y"}, 409, "changed meanwhile"),
        ("stop", {}, {}, 409, "no chunk is begun yet"),
        ("score", {}, {}, 400, "text is missing"),
        ("score", {}, {"text": 3}, 400, "text: wanted string, got 3"),
        ("edit", {}, {"chunk": True}, 400, "chunk: wanted integer, got true"),
        ("edit", {}, {"chunk": 1, "path": "x"}, 400, "unknown path; wanted chunk, prompt"),
        ("edit", {}, {"chunk": 1, "cfg": "2"}, 400, "cfg: wanted number or null"),
        ("pause", {}, {"x": 1}, 400, "wanted an empty object"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(queue, name, where, body, status, says):
    found = ask(name, **where, **body)
    assert found[0] == status and says in found[1]["error"]
    assert runs.times_edited(TEXT) == 0


@pytest.mark.parametrize("raw", [b"[]", b"{", b"\xff", b'{"text": NaN'])
def test_a_body_that_is_no_object_is_refused(queue, raw):
    assert routes.answer(VERBS["score"], {"run": "run", "node": "5"}, raw)[0] == 400


def test_scores_are_read_and_written_without_a_run(queue):
    status, found = ask("read", text="0: a; 1 [cut]: b; 3 [end]:", chunks=2)
    assert status == 200 and [cell["cut"] for cell in found["chunks"]] == [False, True] and found["end"] == 3
    assert ask("write", text=TEXT, chunk=4, seed=1) == (200, {"text": "0: a; 4 [seed 1]: b"})
    assert ask("write", text=TEXT, chunk=4, seed=-1)[0] == 409


def test_the_table_is_its_own_openapi_page(queue):
    page = ask("openapi")[1]
    assert {name for path in page["paths"].values() for verb in path.values() for name in [verb["operationId"]]} == {
        *VERBS
    }
    edit = page["paths"][routes.RUN + "/edit"]["post"]
    assert edit["requestBody"]["content"]["application/json"]["schema"]["required"] == ["chunk"]
    assert [place["name"] for place in edit["parameters"]] == ["run", "node"]
    for verb in VERBS.values():
        text = (host.Path(routes.__file__).parents[1] / "web" / "docs" / "live.md").read_text(encoding="utf-8")
        path = re.sub(r"{(\w+)}", lambda found: found[1].upper(), verb.path)
        assert f"`{verb.method} {path}`" in text or verb.name == "openapi"


def test_what_was_used_is_written_back_and_the_graph_stays(queue):
    score = runs.find("run", "5")
    graph = SimpleNamespace(original_prompt=json.loads(json.dumps(queue.item[2])))
    extra = {"workflow": workflow()}
    runs.write_back(graph, "run", "5", score, extra)
    assert not hasattr(graph, "get_original_prompt"), "nothing was changed"
    score.edit(2, prompt="c")
    runs.write_back(graph, "run", "5", score, extra)
    assert graph.original_prompt["5"]["inputs"]["text"] == TEXT, "ComfyUI's cache goes by it"
    assert graph.get_original_prompt()["5"]["inputs"] == {"text": score.text, "text_encoder": ["2", 1]}
    for marks in (extra["workflow"], queue.item[3]["extra_pnginfo"]["workflow"]):
        assert marks["nodes"][0]["widgets_values"] == [score.text]
    assert queue.item[2]["5"]["inputs"]["text"] == score.text
    runs.put_into_workflow({"workflow": (inside := workflow())}, "7:5", score)
    assert inside["definitions"]["subgraphs"][0]["nodes"][0]["widgets_values"] == [score.text]
    assert inside["nodes"][0]["widgets_values"] == [TEXT]
    strange = [None, {}, {"nodes": None}, [], "x", {"nodes": ["x", {"id": 7}], "definitions": {"subgraphs": [1]}}]
    for one in (*strange, {"nodes": [{"id": 7, "type": []}], "definitions": {"subgraphs": {}}}):
        runs.put_into_workflow({"workflow": one}, "7:5", score)
        runs.put_into_workflow(one, "7:5", score)


def test_edited_runs_change_what_comfyuis_cache_goes_by(queue):
    first = runs.times_edited(TEXT)
    score = runs.find("run", "5")
    score.edit(2, seed=1)
    score.edit(2, seed=2)
    assert runs.times_edited(TEXT) == first + 1
    runs.score_of("another", "5", TEXT).edit(3, seed=1)
    assert runs.times_edited(TEXT) == first + 2 and runs.times_edited("0: z") == 0


def test_scores_are_kept_within_bounds(queue):
    for k in range(100):
        runs.score_of(f"run {k}", "5", TEXT)
    assert len(runs._SCORES) == runs.KEPT
