"""Loops and ComfyUI's cache: a change reaches the chunks it bears on, and what is upstream of a chunk does not grow."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow import unroll
from support.loops import CLASSES, Add, graph, wired


def rounds():
    """A body whose clip hangs on its history, and not the other way round; and something shown per chunk."""
    nodes = graph(n6=("Add", {"history": ["3", 0], "letter": "b", "clip": ["2", 2]}), n7=("Show", {"value": ["3", 2]}))
    return wired(nodes, "4", clip=["6", 1], value_1=["3", 2])


def test_a_longer_loop_begins_with_the_same_nodes():
    """ComfyUI's cache finds a node by class, inputs and what is upstream of it: none of that may tell the count."""
    short, long = (unroll.unroll(rounds(), "4", count, CLASSES)[0] for count in (2, 3))
    assert short.items() <= long.items()
    assert set(long) - set(short) == {"4.2.history", "4.2.clip", "4.3.3", "4.3.6", "4.3.7"}


def upstream(nodes, node):
    """What the cache knows a node by: it and all that its wires lead back to."""
    found, todo = {}, [node]
    while todo:
        if (i := todo.pop()) not in found and i in nodes:
            found[i] = (nodes[i]["class_type"], json.dumps(nodes[i]["inputs"], sort_keys=True))
            todo += [v[0] for v in nodes[i]["inputs"].values() if isinstance(v, list)]
    return found


CHANGES = {  # what is changed -> the copies in the second chunk that ComfyUI has to run again
    "a node that the history hangs on": (lambda n: wired(n, "3", letter="z"), {"3", "6", "7"}),
    "a node that only the clip hangs on": (lambda n: wired(n, "6", letter="z"), {"6"}),
    "where the history begins": (lambda n: wired(n, "2", history=["9", 0]), {"3", "6", "7"}),
    "where the clip begins": (lambda n: wired(n, "2", clip=["9", 0]), {"6"}),
    "what goes round": (lambda n: wired(n, "4", history=["6", 0]), {"3", "6", "7"}),
    "a value from outside": (lambda n: wired(n, "6", number=["9", 0]), {"6"}),
    "the count": (lambda n: wired(n, "2", chunks=9), set()),
    "what the clip is wired to": (lambda n: wired(n, "4", clip=["3", 1]), {"6"}),
    "what leaves the loop": (lambda n: wired(n, "4", value_2=["6", 2]), set()),
    "a title": (lambda n: n["3"].update(_meta={"title": "z"}) or n, set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_the_chunks_it_bears_on_and_no_others(change):
    changed, wanted = CHANGES[change]
    outside = {"1": ("Begin", {}), "9": ("Begin", {})}
    one, other = (
        {**graph(**{f"n{i}": n for i, n in outside.items()}), **unroll.unroll(nodes, "4", 2, CLASSES)[0]}
        for nodes in (rounds(), changed(rounds()))
    )
    assert {i for i in "367" if upstream(one, f"4.2.{i}") != upstream(other, f"4.2.{i}")} == wanted


def test_a_change_outside_reaches_every_chunk():
    """By wire: what is upstream of the loop is upstream of every chunk, for the cache to look at itself."""
    nodes = unroll.unroll(wired(rounds(), "6", number=["9", 1]), "4", 4, CLASSES)[0]
    assert [json.dumps(["1", 0]) in str(upstream(nodes, f"4.{k}.3")) for k in (1, 2, 3, 4)] == [True] * 4
    assert [json.dumps(["9", 1]) in str(upstream(nodes, f"4.{k}.6")) for k in (1, 2, 3, 4)] == [True] * 4
    assert [json.dumps(["9", 1]) in str(upstream(nodes, f"4.{k}.3")) for k in (1, 2, 3, 4)] == [False] * 4


def test_what_is_upstream_of_a_chunk_does_not_grow():
    nodes = unroll.unroll(rounds(), "4", 50, CLASSES)[0]
    assert len(upstream(nodes, "4.2.6")) == len(upstream(nodes, "4.50.6")) == 4


class Fresh(Add):
    IS_CHANGED = classmethod(lambda cls, **_: "now")


def test_behind_a_node_that_decides_when_it_has_changed_chunks_are_wired_through():
    nodes = wired(rounds(), "6")
    nodes["6"]["class_type"] = "Fresh"
    nodes = unroll.unroll(nodes, "4", 9, {**CLASSES, "Fresh": Fresh})[0]
    assert [k for k in range(1, 10) if f"4.{k}.6" in upstream(nodes, "4.9.6")] == list(range(1, 10))
    assert [k for k in range(1, 10) if f"4.{k}.3" in upstream(nodes, "4.9.3")] == [9]
