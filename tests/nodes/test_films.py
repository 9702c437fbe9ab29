"""Films of runs without a server: which is whose, what is told of them, and what is handed out and what is not."""

from __future__ import annotations

import io
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
from helios_video.helios_core.join import Clip, hls
from helios_video.nodes import films, place, routes, runs
from PIL import Image
from support.clips import numbered

TEXT = "0: a; 4: b"
GRAPH = {
    "5": {"class_type": "HeliosPromptSchedule", "inputs": {"text": TEXT}},
    "6": {"class_type": "HeliosPromptSchedule", "inputs": {"text": "0: bad"}},
    "7": {"class_type": "DMDPyramidSample", "inputs": {"positive": ["5", 0], "negative": ["6", 0]}},
    "9": {"class_type": "ChunkConcat", "inputs": {"latent": ["7", 0]}},
    "10": {"class_type": "ChunkConcat", "inputs": {"images": ["3", 0]}},
    "3": {"class_type": "LoadImage", "inputs": {}},
}
VERBS = {verb.name: verb for verb in routes.verbs()}


@pytest.fixture
def comfyui(monkeypatch):
    """ComfyUI with one run in work, whose node 9 runs, and what was sent to its listeners."""
    sent, queue = [], SimpleNamespace(currently_running={0: (1, "run", GRAPH, {}, [])}, mutex=Lock())
    server = SimpleNamespace(prompt_queue=queue, last_prompt_id="run", client_id=None)
    server.send_sync = lambda kind, data: sent.append((kind, data))
    graph = SimpleNamespace(all_node_ids=GRAPH.keys, get_node=GRAPH.get, original_prompt=GRAPH, get_display_node_id=str)
    found = SimpleNamespace(sent=sent, queue=queue, node="9")
    monkeypatch.setattr(runs, "server", lambda: server)
    monkeypatch.setattr(place, "running", lambda: (graph, found.node))
    runs._SCORES.clear()
    films._FILMS.clear()
    return found


def ask(name: str, **place) -> tuple[int, object]:
    return routes.answer(VERBS[name], {"run": "run", "film": "0", **place})


def grown(folder, count=2, chunk=0):
    clip = Clip.new(folder)
    for k in range(count):
        clip = clip.append(numbered(33))
        films.grew(clip, None if chunk is None else chunk + k)
    return clip


def test_a_run_s_chunks_become_one_film_of_its_score(comfyui, tmp_path):
    grown(tmp_path, count=3, chunk=8)
    told = [data for kind, data in comfyui.sent if kind == films.EVENT]
    assert [(film["film"], film["chunks"], film["first"]) for film in told] == [(0, 1, 8), (0, 2, 8), (0, 3, 8)]
    assert told[-1]["schedule"] == "5" and told[-1]["text"] == TEXT and told[-1]["node"] == "9"
    assert (
        told[-1]["frames"] == [33] * 3 and told[-1]["fps"] == 24 and (told[-1]["width"], told[-1]["height"]) == (96, 32)
    )
    assert ask("films")[1] == {"films": [told[-1]]} and not told[-1]["over"]
    comfyui.queue.currently_running.clear()
    assert ask("films")[1]["films"][0]["over"]


def test_an_edited_score_is_the_films(comfyui, tmp_path):
    runs.score_of("run", "5", TEXT).edit(2, seed=3)
    grown(tmp_path, count=1)
    assert comfyui.sent[-1][1]["text"] == "0: a\n2 [seed 3]:; 4: b"


def test_clips_that_part_are_two_films_and_others_have_no_score(comfyui, tmp_path):
    clip = grown(tmp_path, count=2)
    films.grew(clip.append(numbered(5)), 2)
    films.grew(clip.append(numbered(6)), 2)
    comfyui.node = "10"
    grown(tmp_path / "else", count=1, chunk=None)
    assert [(film["chunks"], film["schedule"], film["text"]) for film in films.listed("run")] == [
        (3, "5", TEXT),
        (3, "5", TEXT),
        (1, None, None),
    ]


def test_what_players_ask_for(comfyui, tmp_path):
    clip = grown(tmp_path)
    status, sent = ask("playlist")
    assert (status, sent.kind, sent.lasts) == (200, "application/vnd.apple.mpegurl", False)
    assert sent.data.decode() == hls.playlist(clip, False)
    assert ask("head")[1].data == hls.head(clip) and ask("part", chunk="1")[1].data == hls.part(clip, 1)
    comfyui.queue.currently_running.clear()
    assert ask("playlist")[1].data.endswith(b"ENDLIST\n")
    for gone in (False, True):
        if gone:
            clip.segments[1].path.with_suffix(".jpg").unlink()
        with Image.open(io.BytesIO(ask("picture", chunk="1")[1].data)) as picture:
            assert picture.size == (96, 32) and abs(np.asarray(picture).mean() - clip.tail.frame.mean()) < 4


def test_what_is_none_is_refused_and_nothing_else_is_read(comfyui, tmp_path):
    clip = grown(tmp_path)
    for place_ in ({"run": "other"}, {"film": "1"}, {"film": "x"}, {"film": "-1"}):
        assert [ask(name, chunk="0", **place_)[0] for name in ("playlist", "head", "part", "picture")] == [404] * 4
    for chunk in ("2", "-1", "..", "0/../1", "x"):
        assert ask("part", chunk=chunk)[0] == ask("picture", chunk=chunk)[0] == 404
    clip.segments[0].path.unlink()
    status, said = ask("part", chunk="0")
    assert status == 404 and str(tmp_path) not in said["error"]


def test_films_are_kept_within_bounds(comfyui, tmp_path):
    clip = Clip.new(tmp_path).append(numbered(2))
    for k in range(films.KEPT + 5):
        runs.server().last_prompt_id = f"run {k}"
        films.grew(clip, 0)
    assert len(films.listed()) == films.KEPT and films.listed()[0]["run"] == "run 5"


def test_outside_of_comfyui_there_are_none(monkeypatch, tmp_path):
    films._FILMS.clear()
    grown(tmp_path)
    assert not films.listed() and not list(tmp_path.glob("*.jpg"))
