"""Workflows with subgraphs, of the nodes in sums.py: Number -> [Add, inside] -> Show."""

from __future__ import annotations

from .sums import node

INNER, OUTER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def link(number, source, slot, target, place, what="NUMBER"):
    """A link as subgraphs hold them."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(keys, (number, source, slot, target, place, what), strict=True))


def socket(name, what="NUMBER", wire=None, **more):
    return {"name": name, "type": what, "link": wire, **more}


def widget(name, what, wire=None):
    return socket(name, what, wire, widget={"name": name})


def output(what="NUMBER", *links):
    return {"name": "out", "type": what, "links": list(links)}


def definition(name, nodes, links, inputs, outputs):
    """A subgraph; inputs, outputs: name -> type. Which links hang on them is read from the links."""

    def ends(given, key, place, at):
        return [
            {"id": n, "name": n, "type": t, "linkIds": [x["id"] for x in links if x[key] == at and x[place] == i]}
            for i, (n, t) in enumerate(given.items())
        ]

    return {
        "id": name,
        "name": f"sum {name[0]}",
        "nodes": nodes,
        "links": links,
        "inputs": ends(inputs, "origin_id", "origin_slot", -10),
        "outputs": ends(outputs, "target_id", "target_slot", -20),
    }


def adder():
    """a + (a Number inside, whose seed and text are shown outside)."""
    sockets = [widget("text", "STRING", 4), widget("seed", "INT", 2)]
    values = ["inside", 5, "fixed", 1.0, "plain", False]
    nodes = [
        node(21, "Number", sockets, [output("NUMBER", 3), output("STRING")], values),
        node(22, "Add", [socket("a", wire=1), socket("b", "NUMBER,IMAGE", 3)], [output("NUMBER", 5)]),
    ]
    wires = [link(1, -10, 0, 22, 0), link(2, -10, 1, 21, 1, "INT"), link(3, 21, 0, 22, 1)]
    wires += [link(4, -10, 2, 21, 0, "STRING"), link(5, 22, 0, -20, 0)]
    return definition(INNER, nodes, wires, {"a": "NUMBER", "seed": "INT", "text": "STRING"}, {"sum": "NUMBER"})


def instance(number, name, wire, values=None, mode=0, seed=None, links=(), **more):
    """The node that stands for a subgraph of the first kind."""
    sockets = [socket("a", wire=wire), widget("seed", "INT", seed)]
    return node(number, name, sockets, [output("NUMBER", *links)], values, mode=mode, **more)


def flat(values=None, *, mode=0, seeded=False):
    """Number 1 (2) -> the adder -> Show. values: set on the adder; seeded: its seed comes from a PrimitiveNode."""
    nodes = [
        node(1, "Number", [], [output("NUMBER", 1), output("STRING")], ["x", 2, "fixed", 1.0, "plain", False]),
        instance(7, INNER, 1, values, mode, 3 if seeded else None, [2], title="Adder"),
        node(3, "Show", [socket("value", "*", 2)], []),
    ]
    links = [[1, 1, 0, 7, 0, "NUMBER"], [2, 7, 0, 3, 0, "*"]]
    if seeded:
        nodes.append(node(4, "PrimitiveNode", [], [output("INT", 3)], [8, "fixed"]))
        links.append([3, 4, 0, 7, 1, "INT"])
    return {"nodes": nodes, "links": links, "definitions": {"subgraphs": [adder()]}}


def nested(values=None, *, inner=None, mode=0):
    """Number 1 (2) -> a subgraph that holds the adder twice -> Show; the first adder's seed is shown outside."""
    nodes = [
        instance(10, INNER, 1, inner, 0, 4, [2]),
        instance(11, INNER, 2, [1], mode, None, [3]),
    ]
    links = [link(1, -10, 0, 10, 0), link(2, 10, 0, 11, 0), link(3, 11, 0, -20, 0), link(4, -10, 1, 10, 1, "INT")]
    twice = definition(OUTER, nodes, links, {"a": "NUMBER", "seed": "INT"}, {"sum": "NUMBER"})
    source = flat()
    source["nodes"][1] = instance(7, OUTER, 1, values, 0, None, [2])
    return {**source, "definitions": {"subgraphs": [adder(), twice]}}
