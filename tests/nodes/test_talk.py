"""The verbs as messages of a WebSocket, without a server: what is answered, what is told unasked, and to whom."""

from __future__ import annotations

import asyncio
import json
from threading import Lock
from types import SimpleNamespace

import pytest
from helios_video.nodes import films, routes, runs, talk

TEXT = "0: a; 4: b"


@pytest.fixture
def queue(monkeypatch):
    """ComfyUI's queue with one run in work and one that is over."""
    graph = {"5": {"class_type": "HeliosPromptSchedule", "inputs": {"text": TEXT}}}
    over = {"past": {"prompt": (1, "past", json.loads(json.dumps(graph)), {}, [])}}
    found = SimpleNamespace(currently_running={0: (1, "run", graph, {}, [])}, mutex=Lock())
    found.get_history = lambda prompt_id: {prompt_id: over[prompt_id]} if prompt_id in over else {}
    server = SimpleNamespace(prompt_queue=found, send_sync=lambda *_: None)
    monkeypatch.setattr(runs, "server", lambda: server)
    monkeypatch.setattr(runs, "LISTENERS", [talk.news])
    runs._SCORES.clear()
    return found


def say(**message) -> dict:
    return talk.reply(json.dumps(message))


def test_a_message_is_answered_as_its_route_is(queue):
    found = say(verb="edit", id=7, run="run", node="5", chunk=2, seed=3)
    assert (found["id"], found["status"], found["text"]) == (7, 200, "0: a\n2 [seed 3]:; 4: b")
    assert say(verb="status")["edits"] == 1, "the one run there is need not be named"
    assert say(verb="pause")["paused"] and say(verb="films") == {"status": 200, "films": films.listed()}
    assert say(verb="write", text=TEXT, chunk=4, cut=True)["text"] == "0: a; 4 [cut]: b"
    queue.currently_running[1] = (2, "two", queue.currently_running[0][2], {}, [])
    assert say(verb="status")["status"] == 400 and say(verb="status", run="two", node="5")["status"] == 200


@pytest.mark.parametrize(
    ("message", "status", "says"),
    [
        ({}, 400, "unknown verb; wanted one of runs"),
        ({"verb": ["edit"]}, 400, "unknown verb"),
        ({"verb": "picture", "run": "run", "film": "0", "chunk": "0"}, 400, "unknown verb"),
        ({"verb": "status", "run": 3}, 400, "run: wanted the name of one"),
        ({"verb": "status", "run": "other"}, 404, "no run 'other' is in work"),
        ({"verb": "edit", "chunk": 2, "path": "x"}, 400, "unknown path"),
        ({"verb": "edit", "chunk": 0, "end": True}, 409, "cannot end before chunk 0"),
        ({"verb": "retake", "run": "run", "node": "5", "chunk": 1}, 404, "no run 'run' is over"),
        ({"verb": "retake", "run": "past", "node": "6", "chunk": 1}, 404, "no schedule node '6'"),
        ({"verb": "retake", "run": "past", "node": "5", "chunk": 4, "prompt": "b"}, 409, "says that already"),
        ({"verb": "retake", "run": "past", "node": "5", "chunk": 4, "image": ["../x.png", 1]}, 409, "without '..'"),
    ],
)
def test_what_cannot_be_is_said_and_the_connection_stays(queue, message, status, says):
    found = talk.reply(json.dumps(message))
    assert found["status"] == status and says in found["error"]


@pytest.mark.parametrize("text", ["", "[]", "{", "\ud800", '{"verb": NaN}'])
def test_what_is_no_message_is_refused(queue, text):
    assert talk.reply(text)["status"] == 400


def test_a_retake_is_the_prompt_of_then_with_another_score(queue):
    found = say(verb="retake", run="past", node="5", chunk=2, seed=9)
    assert found["prompt"]["5"]["inputs"] == {"text": "0: a\n2 [seed 9]:; 4: b"}
    page = routes.openapi()["paths"]["/helios/retake"]["post"]
    assert page["requestBody"]["content"]["application/json"]["schema"]["required"] == ["run", "node", "chunk"]


def test_changes_are_told_to_all_who_are_connected(queue):
    heard = []
    talk._LISTENERS.add(heard.append)
    try:
        say(verb="edit", chunk=2, seed=3)
    finally:
        talk._LISTENERS.clear()
    assert heard[-1]["event"] == "score" and heard[-1]["prompt"] == "run" and heard[-1]["edits"] == 1


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"Host": "127.0.0.1:8188"}, True),
        ({"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188"}, True),
        ({"Host": "127.0.0.1:8188", "Origin": "http://elsewhere.example"}, False),
        ({"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:9"}, False),
        ({"Host": "127.0.0.1:8188", "Origin": "null"}, False),
    ],
)
def test_pages_of_elsewhere_are_refused(headers, same):
    assert talk.same_origin(headers) is same
    if not same:
        pytest.importorskip("aiohttp")
        assert asyncio.run(talk.handle(SimpleNamespace(headers=headers))).status == 403
