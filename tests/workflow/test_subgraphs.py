"""Subgraphs run as they stand: nested, bypassed, muted, with values set outside."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.run import run
from support.nested import INNER, flat, link, nested
from support.sums import CLASSES, Number, Show, node


@pytest.fixture
def shown(tmp_path):
    """What the workflow shows."""

    def shown(source, overrides=None):
        Number.made.clear()
        Show.shown.clear()
        path = tmp_path / "flow.json"
        path.write_text(json.dumps(source))
        run(path, CLASSES, overrides, output_dir=tmp_path / "out")
        return Show.shown[0][0]

    return shown


@pytest.mark.parametrize(
    ("source", "result"),
    [
        (flat(), 2 + 5),
        (flat([]), 2 + 5),
        (flat([3]), 2 + 3),
        (flat([3, "words"]), 2 + 3),
        (flat([3], seeded=True), 2 + 5),  # as in the editor: a PrimitiveNode reaches into no subgraph
        (flat([3], mode=4), 2),
        (nested(), 2 + 5 + 1),
        (nested([4]), 2 + 4 + 1),
        (nested([4], inner=[9]), 2 + 4 + 1),
        (nested([4], mode=4), 2 + 4),
    ],
)
def test_a_subgraph_runs_with_the_values_set_outside(shown, source, result):
    assert shown(source) == result


def test_inner_nodes_are_called_by_all_their_levels():
    assert set(fmt.to_api(flat(), CLASSES)) == {"1", "3", "7:21", "7:22"}
    prompt = fmt.to_api(nested([4]), CLASSES)
    assert set(prompt) == {"1", "3", "7:10:21", "7:10:22", "7:11:21", "7:11:22"}
    assert prompt["7:10:22"]["inputs"] == {"a": ["1", 0], "b": ["7:10:21", 0]}
    assert prompt["3"]["inputs"] == {"value": ["7:11:22", 0]}
    assert fmt.to_api(flat([3, "words"]), CLASSES)["7:21"]["inputs"]["text"] == "words"


def test_set_reaches_into_a_subgraph(shown):
    assert shown(flat([3]), {"7:21.seed": "6"}) == 8


def test_a_muted_subgraph_gives_nothing_and_says_so(shown):
    source = flat([3], mode=2)
    assert set(fmt.to_api(source, CLASSES)) == {"1", "3"}
    said = r"flow.json: node 3 \(Show\) needs value: wire .*; value: node 7 \(Adder, 1111.*\) is muted"
    with pytest.raises(ValueError, match=said):
        shown(source)


def test_subgraphs_that_cannot_be(shown):
    source = flat()
    inner = source["definitions"]["subgraphs"][0]
    inner["nodes"].append(node(5, INNER, [], []))
    with pytest.raises(ValueError, match=r"node 7:5 \(1111.*\): the subgraph 'sum 1' holds itself"):
        shown(source)
    inner["nodes"].pop()
    inner["links"][0] = link(1, 22, 0, 22, 0)
    with pytest.raises(ValueError, match="in a circle: 7:22 -> 7:22"):
        shown(source)
    with pytest.raises(ValueError, match=r"does not know: a subgraph that the file does not hold.*\(node 7\)"):
        shown({**flat(), "definitions": None})


def test_subgraphs_that_multiply_are_refused(shown):
    """Thirty levels of two of the next would be a thousand million nodes."""
    names = [f"{i:08d}-1111-4111-8111-111111111111" for i in range(30)]
    held = [
        {"id": name, "name": name, "nodes": [node(1, below, [], []), node(2, below, [], [])], "links": []}
        for name, below in zip(names, [*names[1:], "Show"], strict=True)
    ]
    with pytest.raises(ValueError, match="come to more than 20000 nodes"):
        shown({"nodes": [node(1, names[0], [], [])], "links": [], "definitions": {"subgraphs": held}})


def test_a_hundred_levels(shown):
    """Each passes its input to the next and takes what comes back."""
    names = [f"{i:08d}-2222-4222-8222-222222222222" for i in range(100)]
    held = []
    for name, below in zip(names, [*names[1:], "Add"], strict=True):
        ends = [{"name": "a", "type": "NUMBER", "linkIds": [1]}], [{"name": "sum", "type": "NUMBER", "linkIds": [2]}]
        sockets = [{"name": "a", "type": "NUMBER", "link": 1}, {"name": "b", "type": "NUMBER", "link": 3}]
        wires = [link(1, -10, 0, 5, 0), link(2, 5, 0, -20, 0), link(3, -10, 0, 5, 1)]
        inner = node(5, below, sockets if below == "Add" else sockets[:1], [{"name": "sum", "type": "NUMBER"}])
        held.append({"id": name, "nodes": [inner], "links": wires, "inputs": ends[0], "outputs": ends[1]})
    source = {**flat(), "definitions": {"subgraphs": held}}
    source["nodes"][1]["type"] = names[0]
    assert shown(source) == 4


def test_one_output_with_two_wires_gives_the_one_that_it_lists_first(shown):
    source = flat()
    inner = source["definitions"]["subgraphs"][0]
    inner["links"].append(link(6, 21, 0, -20, 0))
    inner["outputs"][0]["linkIds"] = [6, 5]
    assert shown(source) == 5
