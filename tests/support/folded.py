"""A workflow with some of its nodes put into a subgraph, as the editor's "Convert to Subgraph" does."""

from __future__ import annotations

import json

from .nested import link


def fold(source: dict, inside: set, number: int, name: str) -> dict:
    """The same workflow with the nodes whose ids are in `inside` in a subgraph that node `number` stands for.

    name: the subgraph's id. A wire into it gets an input of its own, each output that is used outside an output.
    """
    source = json.loads(json.dumps(source))
    nodes = {node["id"]: node for node in source["nodes"]}
    into = [wire for wire in source["links"] if wire[3] in inside and wire[1] not in inside]
    out = [wire for wire in source["links"] if wire[1] in inside and wire[3] not in inside]
    kept = [wire for wire in source["links"] if wire[1] in inside and wire[3] in inside]
    gives = list(dict.fromkeys((wire[1], wire[2]) for wire in out))
    wires = [link(*wire) for wire in kept]
    wires += [link(wire[0], -10, i, wire[3], wire[4], wire[5]) for i, wire in enumerate(into)]
    types = [nodes[origin]["outputs"][slot]["type"] for origin, slot in gives]
    last = max((wire[0] for wire in source["links"]), default=0)
    wires += [link(last + 1 + i, *end, -20, i, what) for i, (end, what) in enumerate(zip(gives, types, strict=True))]
    definition = {
        **{"id": name, "name": name, "nodes": [node for i, node in nodes.items() if i in inside], "links": wires},
        "inputs": [
            {"id": f"i{i}", "name": f"in {i}", "type": wire[5], "linkIds": [wire[0]]} for i, wire in enumerate(into)
        ],
        "outputs": [
            {"id": f"o{i}", "name": f"out {i}", "type": what, "linkIds": [last + 1 + i]} for i, what in enumerate(types)
        ],
    }
    stand = {
        **{"id": number, "type": name, "mode": 0, "widgets_values": []},
        "inputs": [{"name": f"in {i}", "type": wire[5], "link": wire[0]} for i, wire in enumerate(into)],
        "outputs": [{"name": f"out {i}", "type": what, "links": []} for i, what in enumerate(types)],
    }
    for i, wire in enumerate(into):
        wire[3:5] = number, i
    for wire in out:
        wire[1:3] = number, gives.index((wire[1], wire[2]))
    source["links"] = [wire for wire in source["links"] if wire not in kept]
    source["nodes"] = [*(node for i, node in nodes.items() if i not in inside), stand]
    held = source.get("definitions", {}).get("subgraphs", [])
    return {**source, "definitions": {"subgraphs": [*held, definition]}}
