"""Loops: the graph they become, what is refused, and how they run in the workflow runner, with small nodes here."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow import loops, unroll
from helios_video.helios_core.workflow.graph import BLOCKED, Graph
from helios_video.helios_core.workflow.run import run
from helios_video.nodes import expansion, sockets
from support.loops import CLASSES, Add, graph, wired


@pytest.fixture(autouse=True)
def forget():
    Add.made.clear()


@pytest.fixture
def go(tmp_path):
    def go(nodes, **options):
        (tmp_path / "loop.json").write_text(json.dumps(nodes))
        return run(tmp_path / "loop.json", CLASSES, output_dir=tmp_path / "out", **options).texts

    return go


def links_of(nodes):
    return {i: (n["class_type"], n["inputs"]) for i, n in nodes.items()}


def test_the_body_is_written_out_once_per_chunk():
    nodes, results = unroll.unroll(graph(), "4", 2, CLASSES)
    step = nodes.pop("4.1.history")
    assert links_of(nodes) == {
        "4.1.3": ("Add", {"history": ["1", 0], "letter": "a", "number": 0}),
        "4.2.3": ("Add", {"history": ["4.1.history", 0], "letter": "a", "number": 1}),
    }
    assert step["class_type"] == "HeliosLoopEnd" and step["inputs"]["loop"] == unroll.HAND_ON
    assert step["becomes"] == (["4.1.3", 0], *[None] * 6, ["4.1.3", 0])
    assert results == (["4.2.3", 0], None, None, None, None, None, None)
    assert [n["override_display_id"] for n in (*nodes.values(), step)] == ["3", "3", "4"]


def test_copies_of_nodes_in_a_subgraph_do_not_look_like_nodes_of_further_ones():
    """The frontend reads every colon of an id as a subgraph to enter, and fails where there is none."""

    def within(value):
        return ["9:" + value[0], value[1]] if isinstance(value, list) else value

    inside = {f"9:{i}": {**n, "inputs": {k: within(v) for k, v in n["inputs"].items()}} for i, n in graph().items()}
    nodes, results = unroll.unroll(inside, "9:4", 2, CLASSES)
    assert set(nodes) == {"9:4.1.history", "9:4.1.9.3", "9:4.2.9.3"} and results[0] == ["9:4.2.9.3", 0]
    assert [nodes[f"9:4.{k}.9.3"]["override_display_id"] for k in (1, 2)] == ["9:3", "9:3"]


def test_the_source_is_left_as_it_is():
    source = graph()
    before = json.dumps(source)
    unroll.unroll(source, "4", 3, CLASSES)
    assert json.dumps(source) == before


def test_a_loop_runs(go):
    assert go(graph()) == {"Show": "ha0a1a2"}
    assert Add.made == ["begin", "a0", "a1", "a2"]


def test_the_count_may_come_over_a_wire(go):
    nodes = wired(graph(n9=("PrimitiveInt", {"value": 2})), "2", chunks=["9", 0])
    assert go(nodes) == {"Show": "ha0a1"}
    for count, said in ((-1, "from 1 to 1000, got -1"), (-3, "got -3"), (10**9, "got 1000000000")):
        with pytest.raises(ValueError, match=f"chunks: wanted a whole number {said}|chunks: wanted .* {said}"):
            go(wired(nodes, "9", value=count))
    assert Add.made == ["begin", "a0", "a1"], "a wrong count is refused before anything else runs"


def test_a_clip_begins_in_the_first_chunk_and_each_chunk_is_finished_before_the_next(go):
    nodes = graph(
        n6=("Add", {"history": ["3", 0], "letter": "b", "clip": ["2", 2], "number": ["2", 3]}),
        n5=("Show", {"value": ["4", 1]}),
    )
    assert go(wired(nodes, "4", clip=["6", 1])) == {"Show": "b0b1b2"}
    assert Add.made == ["begin", *("a0", "b0", "a1", "b1", "a2", "b2")]


def test_values_go_round_and_come_out(go):
    """value_1 is carried, value_2 stays what it was, value_3 leaves the loop, history passes by."""
    nodes = graph(
        n6=("Add", {"history": ["2", 4], "letter": "x", "number": ["2", 5]}),
        n7=("Show", {"value": ["4", 3]}),
        n8=("Show", {"value": ["4", 5]}),
    )
    wired(nodes, "2", value_1=["1", 0], value_2=["1", 1])
    wired(nodes, "4", value_1=["6", 0], value_3=["3", 2])
    nodes["7"]["_meta"], nodes["8"]["_meta"] = {"title": "carried"}, {"title": "last"}
    assert go(nodes) == {"Show": "ha0a1a2", "carried": "h" + "x100" * 3, "last": "a2"}


def test_what_shows_something_in_the_body_does_so_per_chunk(go):
    """The nodes on the canvas do not run: only their copies do."""
    seen = []
    nodes = graph(n6=("Show", {"value": ["3", 2]}))
    nodes["6"]["_meta"] = {"title": "each"}
    assert go(nodes, on_progress=seen.append) == {"each, 1": "a0", "each, 2": "a1", "each, 3": "a2", "Show": "ha0a1a2"}
    assert Add.made == ["begin", "a0", "a1", "a2"]
    assert [(p.node, p.title) for p in seen if p.title.startswith("Add")] == [("3", f"Add, {k}") for k in (1, 2, 3)]


def inner(letter="i"):
    """An outer loop of 2 around an Add and an inner loop of 3."""
    nodes = graph(
        n20=("HeliosLoopStart", {"chunks": 3, "history": ["3", 0]}),
        n21=("Add", {"history": ["20", 1], "letter": letter, "number": ["20", 3]}),
        n22=("HeliosLoopEnd", {"loop": ["20", 0], "history": ["21", 0]}),
    )
    return wired(wired(nodes, "2", chunks=2), "4", history=["22", 0])


def test_a_loop_in_a_loop(go):
    assert go(inner()) == {"Show": "h" + "a0i0i1i2" + "a1i0i1i2"}
    nodes = inner()
    nodes["23"] = {"class_type": "Show", "inputs": {"value": ["21", 2]}}
    nodes["24"] = {"class_type": "Show", "inputs": {"value": ["22", 0]}}
    shown = go(nodes)
    assert [shown[f"Show, {i}, {k}"] for i in (1, 2) for k in (1, 2, 3)] == ["i0", "i1", "i2"] * 2
    assert (shown["Show, 1"], shown["Show, 2"]) == ("ha0i0i1i2", "ha0i0i1i2a1i0i1i2")
    assert Add.made.count("begin") == 2 and len(Add.made) == 2 * 9, "nothing runs twice"


def test_what_hangs_on_a_node_that_is_muted_alone_does_not_run(go):
    """As where AntiDrift is bypassed, whose report a text box shows: value_1 brings nothing, the rest comes."""
    nodes = graph(n6=("Show", {"value": ["4", 3]}))
    nodes["6"]["_meta"] = {"title": "report"}
    assert go(nodes) == {"Show": "ha0a1a2"}
    nodes["5"]["inputs"]["value"] = ["4", 2]
    with pytest.raises(ValueError, match="but nothing is wired into that"):
        go(nodes)


def test_loops_beside_and_after_each_other(go):
    nodes = graph(
        n20=("HeliosLoopStart", {"chunks": 2, "history": ["1", 0]}),
        n21=("Add", {"history": ["20", 1], "letter": "b", "number": ["20", 3]}),
        n22=("HeliosLoopEnd", {"loop": ["20", 0], "history": ["21", 0]}),
        n23=("Show", {"value": ["22", 0]}),
        n30=("HeliosLoopStart", {"chunks": 2, "history": ["4", 0]}),
        n31=("Add", {"history": ["30", 1], "letter": "c"}),
        n32=("HeliosLoopEnd", {"loop": ["30", 0], "history": ["31", 0]}),
        n33=("Show", {"value": ["32", 0]}),
    )
    for number, name in (("23", "beside"), ("33", "after")):
        nodes[number]["_meta"] = {"title": name}
    assert go(nodes) == {"Show": "ha0a1a2", "beside": "hb0b1", "after": "ha0a1a2cc"}


def test_an_error_in_the_body_ends_the_run(go):
    with pytest.raises(ValueError, match="a1 fails"):
        go(wired(graph(), "3", fails_at=1))
    assert Add.made == ["begin", "a0", "a1"]


def crossing():
    nodes = inner()
    return wired(wired(nodes, "4", history=["21", 0]), "22", history=["3", 0])


SHOW = ("Show", {"value": ["3", 0]})
REFUSED = {
    "no end": (graph(n4=None, n5=SHOW), "node 2 .HeliosLoopStart. has no HeliosLoopEnd: wire its loop to one"),
    "an end that nothing uses": (graph(n5=SHOW), "node 4 .HeliosLoopEnd. is wired to nothing"),
    "two ends": (graph(n6=("HeliosLoopEnd", {"loop": ["2", 0], "history": ["3", 0]})), "has 2 HeliosLoopEnd"),
    "an empty body": (wired(graph(n3=None), "4", history=["1", 0]), "nothing stands between it"),
    "a leak": (
        graph(n5=("Add", {"history": ["4", 0], "letter": ["3", 2]}), n6=("Show", {"value": ["5", 0]})),
        r"node 3 \(Add\), inside a loop, past its node 4",
    ),
    "no first value": (
        wired(graph(), "4", value_1=["3", 2]) | {"3": {"class_type": "Add", "inputs": {"history": ["2", 4]}}},
        "node 3 .Add..history: the first chunk needs it; wire value_1 of node 2",
    ),
    "no value at all": (wired(graph(), "3", clip=["2", 2]), "clip of node 2 .HeliosLoopStart. is wired to nothing"),
    "nothing comes out": (wired(graph(), "5", value=["4", 4]), "wired to value_2 of node 4.*but nothing is wired"),
    "another type goes on": (
        wired(wired(graph(), "2", value_1=["1", 0]), "4", value_1=["3", 2]),
        "value_1: node 2 .HeliosLoopStart. begins with HELIOS_HISTORY, node 4 .HeliosLoopEnd. goes on with STRING",
    ),
    "a type that does not fit": (
        wired(wired(graph(), "2", value_1=["1", 1]), "3", history=["2", 4]),
        r"node 3 \(Add\).history: wanted HELIOS_HISTORY, value_1 of node 2 .HeliosLoopStart. carries INT",
    ),
    "the loop elsewhere": (graph(n6=("Show", {"value": ["2", 0]})), "is for its HeliosLoopEnd alone"),
    "loops that cross": (crossing(), "the loops of .* cross"),
    "an inner loop left past its end": (
        wired(inner(), "4", value_1=["21", 2]),
        r"node 4 \(HeliosLoopEnd\).value_1 is wired to node 21 \(Add\), inside a loop, past its node 22",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_loop_is_refused_before_anything_runs(go, name):
    nodes, message = REFUSED[name]
    for entry in nodes.values():
        if entry["class_type"] == "Add":
            entry["inputs"].setdefault("letter", "a")
    with pytest.raises(ValueError, match=message):
        go(nodes)
    assert not [word for word in Add.made if word != "begin"]


def test_an_end_that_is_wired_to_something_else_is_refused():
    with pytest.raises(ValueError, match="wire loop to the loop of a HeliosLoopStart"):
        loops.find(wired(graph(), "4", loop=["1", 0]), "4")


def test_nodes_see_the_level_they_stand_in():
    """As ComfyUI's DynamicPrompt has it: what a node became is beside its brothers, and shown on the canvas."""
    seen = Graph(graph())
    seen.grow("4", unroll.unroll(graph(), "4", 2, CLASSES)[0])
    assert set(expansion.level(seen, "3")) == {"1", "2", "3", "4", "5"}
    assert set(expansion.level(seen, "4.1.3")) == {"4.1.3", "4.1.history", "4.2.3"}
    expansion.blame_shown(seen)
    assert [seen.get_real_node_id(i) for i in ("3", "4.2.3", "4.1.history")] == ["3", "3", "4"]


def test_without_comfyui_the_start_blocks_what_is_on_the_canvas(go, monkeypatch):
    given = []
    monkeypatch.setattr(Graph, "grow", lambda self, parent, nodes: given.append(nodes) or {}["stop"])
    with pytest.raises(KeyError):
        go(graph())
    assert len(given[0]) == 5 and expansion.blocked() is BLOCKED


def test_a_wire_of_any_type_fits_as_comfyui_compares_them():
    assert not sockets.ANY != "VIDEO" and not "VIDEO" != sockets.ANY  # noqa: SIM202
    assert sockets.ANY == "*" and json.dumps(sockets.ANY) == '"*"'
