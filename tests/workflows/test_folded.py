"""The pack's workflows make the same prompts with any of their nodes in subgraphs, nested too, and somewhat damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.standins import NODES
from support.folded import fold

FILES = sorted((Path(pack.__file__).parent / "workflows").glob("*.json"))
FILES = [
    path for path in FILES if '"subgraphs"' not in path.read_text(encoding="utf-8")
]  # nothing is folded in them yet
CLASSES = {**NODES, **pack.NODE_CLASS_MAPPINGS}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def source(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def flat(prompt):
    """A prompt with the ids that its nodes had before they were put into subgraphs."""
    own = {
        i: json.loads(json.dumps(n), object_hook=lambda d: {k: _flat_link(v) for k, v in d.items()})
        for i, n in prompt.items()
    }
    return {i.split(":")[-1]: node for i, node in own.items()}


def _flat_link(value):
    return [value[0].split(":")[-1], value[1]] if fmt.is_link(value) else value


@pytest.mark.parametrize("seed", range(8))
def test_nodes_in_subgraphs_of_subgraphs(source, seed):
    wanted, draw = fmt.to_api(source, CLASSES), random.Random(seed)
    folded = source
    for level in range(3):
        ids = [node["id"] for node in folded["nodes"]]
        inside = set(draw.sample(ids, draw.randint(1, len(ids))))
        folded = fold(folded, inside, 100 + level, f"{level}1111111-1111-4111-8111-111111111111")
    assert any(":" in i for i in fmt.to_api(folded, CLASSES))
    assert flat(fmt.to_api(folded, CLASSES)) == wanted


KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
HARMLESS = {
    "links as objects": lambda s: s.update(links=[dict(zip(KEYS, link, strict=True)) for link in s["links"]]),
    "null links": lambda s: s["links"].insert(1, None),
    "null and empty nodes": lambda s: s["nodes"].extend([None, {}]),
    "inputs that are null": lambda s: [n.update(inputs=None) for n in s["nodes"] if not n.get("inputs")],
    "a PrimitiveNode without values": lambda s: s["nodes"].append({"id": 900, "type": "PrimitiveNode"}),
    "subgraphs that nobody uses": lambda s: s.update(definitions={"subgraphs": [{"id": "x"}, None, 3]}),
    "definitions that are none": lambda s: s.update(definitions=[1]),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_says_nothing_changes_nothing(source, what):
    wanted = fmt.to_api(source, CLASSES)
    HARMLESS[what](source)
    assert fmt.to_api(source, CLASSES) == wanted


WRONG = {
    "number 1 .* has no id": lambda s: s["nodes"][0].pop("id"),
    "number 1 is none": lambda s: s["nodes"].insert(0, 5),
    "links are no list": lambda s: s.update(links=7),
    "link .* is none": lambda s: s["links"].append([1, 2]),
    "comes from no output": lambda s: s["links"][0].__setitem__(2, "x"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_read_is_named(source, message):
    WRONG[message](source)
    with pytest.raises(ValueError, match=message):
        fmt.to_api(source, CLASSES)
