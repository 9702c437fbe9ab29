"""comfy-cli converts the pack's workflows, and those with subgraphs, to the same prompts; what differs is decided."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.standins import NODES
from support.nested import flat, link, nested
from support.oracle import NOTHING, compare, reason
from support.sums import CLASSES as SUMS
from support.sums import node, ui

pytest.importorskip("comfy_cli", reason="no comfy-cli to compare with")

FILES = sorted((Path(pack.__file__).parent / "workflows").glob("*.json"))
CLASSES = {**NODES, **pack.NODE_CLASS_MAPPINGS, **SUMS}


def info_of(classes: dict) -> dict:
    """What /object_info would say."""
    return json.loads(json.dumps({name: {"input": kind.INPUT_TYPES()} for name, kind in classes.items()}))


INFO = info_of(CLASSES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_packs_workflows(path):
    assert compare(json.loads(path.read_text(encoding="utf-8")), INFO, CLASSES) == []


@pytest.mark.parametrize(
    "source",
    [
        flat(),
        flat([3]),
        flat([3, "words"]),
        flat([3], seeded=True),
        flat([3], mode=2),
        flat([3], mode=4),
        nested(),
        nested([4], mode=4),
    ],
)
def test_subgraphs(source):
    assert compare(source, INFO, CLASSES) == []


def as_objects(source):
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {**source, "links": [dict(zip(keys, link, strict=True)) for link in source["links"]]}


def test_links_as_objects_and_null_entries_change_nothing():
    """Newer editors write such files; comfy-cli does not read their links."""
    wanted = fmt.to_api(ui(), CLASSES)
    assert fmt.to_api(as_objects(ui()), CLASSES) == wanted
    source = ui()
    source["links"].insert(2, None)
    source["nodes"].insert(2, None)
    source["nodes"].append(node(20, "PrimitiveNode", None, None))
    assert fmt.to_api(source, CLASSES) == wanted


def chain(kind, count, mode=0):
    """Number -> `count` nodes one after another -> Show."""
    number = node(0, "Number", [], [{"name": "n", "type": "NUMBER"}], ["x", 3, "fixed", 1.0, "plain", False])
    nodes = [number, *(hop(kind, i + 1, mode) for i in range(count))]
    nodes.append(node(count + 1, "Show", [{"name": "value", "type": "NUMBER", "link": count}], []))
    return {"nodes": nodes, "links": [[i, i, 0, i + 1, 0, "NUMBER"] for i in range(count + 1)]}


def hop(kind, number, mode):
    sockets = [{"name": "a", "type": "NUMBER", "link": number - 1}]
    return node(number, kind, sockets, [{"name": "n", "type": "NUMBER"}], [], mode=mode)


@pytest.mark.parametrize(("kind", "mode"), [("Reroute", 0), ("Add", 4)])
def test_chains_of_two_thousand(kind, mode):
    source = chain(kind, 2000, mode)
    assert fmt.to_api(source, CLASSES)["2001"]["inputs"] == {"value": ["0", 0]}
    assert compare(source, INFO, CLASSES) == []


def with_source():
    """The adder's seed goes to a socket too, inside; nothing is set outside."""
    source = flat()
    inner = source["definitions"]["subgraphs"][0]
    inner["nodes"].append(node(9, "PreviewAny", [{"name": "source", "type": "*", "link": 8}], [], []))
    inner["links"].append(link(8, -10, 1, 9, 0, "INT"))
    inner["inputs"][1]["linkIds"].append(8)
    return source


def muted_seed():
    source = flat()
    inner = source["definitions"]["subgraphs"][0]
    inner["nodes"].append(node(9, "PrimitiveInt", [], [{"name": "INT", "type": "INT"}], [8, "fixed"], mode=2))
    inner["links"][1] = link(2, 9, 0, 21, 1, "INT")
    inner["inputs"][1]["linkIds"].clear()
    return source


@pytest.mark.parametrize(
    ("source", "name", "theirs", "ours"),
    [
        (chain("Reroute", 1, 2), "value", ["0", 0], NOTHING),
        (ui(), "seed", 1, 4),
        (with_source(), "source", NOTHING, 5),
        (muted_seed(), "seed", NOTHING, 5),
    ],
    ids=["a muted Reroute", "a PrimitiveNode", "a socket beside a widget", "a widget wired to a muted node"],
)
def test_what_is_decided_otherwise(source, name, theirs, ours):
    (difference,) = compare(source, INFO, CLASSES)
    assert (difference.name, difference.theirs, difference.ours) == (name, theirs, ours)
    assert reason(difference)
