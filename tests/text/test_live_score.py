"""A score that is replaced while its run goes on."""

from __future__ import annotations

import json
import threading
import time

import pytest
from helios_video.helios_core.text import LiveScore

TEXT = "0: a; 2 (2): b"


class Stop(Exception):
    pass


def begun(text: str = TEXT, count: int = 2) -> LiveScore:
    """A run with so many chunks begun, all but the last of them done."""
    score = LiveScore(text)
    for chunk in range(count):
        score.begin(chunk)
    return score


@pytest.mark.parametrize(
    "text", ["0: a; 2: c", "0: a", "0: a; 2 [seed 3]:", "0: a; 2 [end]:", "0:a\n7: b", "0: a; 1: a; 2: c"]
)
def test_what_is_not_begun_may_change(text):
    score = begun()
    score.replace(text)
    assert score.text == text and score.begin(2) == score.source


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0: x; 2: b", "chunk 0 is made already: to change it needs a retake"),
        ("0: a; 1: x", "chunk 1 is in work: to change it needs a retake"),
        ("0: a; 1 [seed 3]:", "chunk 1 is in work"),
        ("0: a; 1 [cut]:", "chunk 1 is in work"),
        ("0: a; 1 (2): b", "chunk 1 is in work"),
        ("0: a; 1 [end]:", "chunk 1 is begun: the video can end before chunk 2"),
        ("a", "does not begin with a chunk"),
        ("0: " + "a" * 100_000, "characters: wanted 100000 at most"),
    ],
)
def test_a_refused_score_changes_nothing(text, says):
    score, told = begun(), []
    score.changed = lambda: told.append(1)
    with pytest.raises(ValueError, match=says):
        score.replace(text)
    assert score.text == TEXT and not told and not score.edits


def test_two_pages_do_not_overwrite_each_other():
    score = begun()
    score.edit(3, base=TEXT, seed=1)
    with pytest.raises(ValueError, match="changed meanwhile"):
        score.edit(3, base=TEXT, seed=2)
    assert score.source.direction(3).seed == 1


def test_a_pause_holds_the_next_chunk_until_it_goes_on():
    score, found = begun(), []
    score.pause()
    waiting = threading.Thread(target=lambda: found.append(score.begin(2)))
    waiting.start()
    time.sleep(0.3)
    assert not found and score.begun == 2 and score.done == 2
    score.edit(2, prompt="c")
    score.go_on()
    waiting.join(5)
    assert found[0].shares(2) == (("a", 0.5), ("c", 0.5)), "by the score as it was when the pause ended"


def test_stop_is_heard_in_a_pause():
    def stop():
        raise Stop

    score = begun()
    score.pause()
    with pytest.raises(Stop):
        score.begin(2, stop)


def test_an_early_end_is_written_into_the_score():
    score = begun()
    score.stop()
    assert score.text == "0: a\n; 2 (2) [end]: b".replace("\n", "") and score.source.end == 2
    score.begin(2)
    assert score.ended and score.begun == 2
    with pytest.raises(ValueError, match="has ended by its score"):
        score.replace("0: a")
    with pytest.raises(ValueError, match="no chunk is begun yet"):
        LiveScore(TEXT).stop()
    later = begun("0: a; 9 [end]:")
    later.stop()
    assert later.source.end == 2 and later.text == "0: a\n2 [end]:; 9 [end]:"


def test_chunks_that_came_from_elsewhere_stay_as_the_run_began():
    """ComfyUI's cache had chunks 0 and 1: an edit of them before the run's first chunk is not what was made."""
    score = LiveScore(TEXT)
    score.edit(1, seed=3)
    assert score.begin(2).direction(1).seed is None and score.text == TEXT
    score = LiveScore(TEXT)
    score.edit(3, seed=3)
    assert score.begin(2).direction(3).seed == 3


def test_how_it_stands():
    score = LiveScore("0: a; 2 [seed 4, image cat.png 0.5]: b; 9 [end]:")
    score.begin(0, total=4)
    score.finish(0)
    score.begin(1, total=4)
    stands = json.loads(json.dumps(score.status()))
    assert [cell["state"] for cell in stands["chunks"]] == ["done", "working"] + ["waiting"] * 7
    wanted = {"chunk": 2, "prompts": [["b", 1.0]], "seed": 4, "image": ["cat.png", 0.5], "cut": False}
    assert wanted.items() <= stands["chunks"][2].items()
    assert (stands["begun"], stands["done"], stands["total"], stands["edits"]) == (2, 1, 4, 0)


def test_a_million_chunks_cost_nothing():
    score = LiveScore("0: a; 100000: b")
    assert len(score.status()["chunks"]) == 100
