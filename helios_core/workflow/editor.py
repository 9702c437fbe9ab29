"""From the editor's format to the API's: what the frontend's graphToPrompt does, without a browser.

Muted nodes are left out, bypassed ones wired through, Reroute, PrimitiveNode and the Set and Get nodes of KJNodes
resolved, wires followed into and out of subgraphs; a value that a subgraph shows outside is the one set there.
"""

from __future__ import annotations

from typing import NamedTuple

from .levels import BYPASSED, MUTED, SAVE, Canvas, first_value, listed, open_levels
from .widgets import widget_values

NOTES = ("Note", "MarkdownNote")
UNSEEN = (*NOTES, "Reroute", "PrimitiveNode", "SetNode", "GetNode")  # nodes of the editor alone
GIVEN, RETURNED = -10, -20  # the nodes inside a subgraph that stand for its inputs and outputs


class Brought(NamedTuple):
    """What a link brings: a wire ["id", slot], or a value; or why nothing arrives."""

    wire: list | None = None
    value: object = None
    why: str = ""


class Trace:
    """Follows a wire against its direction, through all that is no node to the executor, up and down the levels."""

    def __init__(self, level: Canvas, entry: dict, classes: dict):
        self.level, self.link, self.what = level, entry.get("link"), str(entry.get("type", "*"))
        self.classes = classes
        self.near = True  # nothing but Reroutes on the way: a PrimitiveNode reaches no further

    def end(self) -> Brought:
        """Where it comes from. ValueError for a circle."""
        seen = set()
        while isinstance(self.link, (int, str)) and self.link in self.level.links:
            place = (self.level.prefix, self.link)
            if place in seen:
                raise ValueError(f"the workflow runs in a circle through link {self.link}{self.level.names()}")
            seen.add(place)
            if found := self._step(*self.level.links[self.link][1:3]):
                return found
        return Brought()

    def _step(self, source, slot: int) -> Brought | None:
        """One link back: the end, or None with the next link set."""
        level = self.level
        if source == GIVEN and level.outer is not None:
            return self._outwards(slot)
        node = level.nodes.get(str(source))
        if node is None:
            return Brought()
        if node["type"] == "PrimitiveNode":
            return Brought(value=first_value(node) if self.near else None)
        if node.get("mode", 0) == MUTED:
            return Brought(why=f"{level.called(node)} is muted")
        if node["type"] == "Reroute" and node.get("mode", 0) != BYPASSED:
            return self._enter(next(iter(node["inputs"]), None))
        self.near = False
        if node.get("mode", 0) == BYPASSED:
            return self._enter(bypass(level, node, slot, self.what), keep=False)
        if str(source) in level.inner:
            return self._inwards(level.inner[str(source)], slot)
        if node["type"] in ("GetNode", "SetNode"):
            return self._named(node)
        return Brought(wire=[level.prefix + str(source), slot])

    def _enter(self, entry: dict | None, *, keep: bool = True) -> Brought | None:
        """On with the link of an input; keep: what is asked for stays, as no node stands between."""
        if entry is None:
            return Brought()
        self.link, self.what = entry.get("link"), self.what if keep else str(entry.get("type", "*"))
        return None

    def _outwards(self, slot: int) -> Brought | None:
        """Out of a subgraph: on with what is wired to it there, or the value that is set there."""
        level = self.level
        outer, node = level.outer, level.node
        given = listed(level.source, "inputs")
        if outer is None or node is None or slot >= len(given) or not isinstance(given[slot], dict):
            return Brought()
        name = given[slot].get("name")
        entry = next((e for e in node["inputs"] if e.get("name") == name), {})
        if not isinstance(entry.get("link"), (int, str)) or entry["link"] not in outer.links:
            return Brought(value=shown_value(level, slot, self.classes))
        self.level, self.near = outer, False
        return self._enter(entry, keep=False)

    def _inwards(self, inner: Canvas, slot: int) -> Brought | None:
        """Into a subgraph, by what is wired to one of its outputs: of several wires the first that it lists."""
        given = listed(inner.source, "outputs")
        names = given[slot].get("linkIds") if slot < len(given) and isinstance(given[slot], dict) else None
        wired = [
            link for link, (_, _, _, target, place, *_) in inner.links.items() if (target, place) == (RETURNED, slot)
        ]
        first = [link for link in names if link in wired] if isinstance(names, list) else []
        if not wired:
            return Brought()
        self.level, self.link = inner, (first or wired)[0]
        return None

    def _named(self, node: dict) -> Brought | None:
        """From a GetNode to the SetNode of its name, on its level or around it."""
        if node["type"] == "SetNode":
            return self._enter(next(iter(node["inputs"]), None))
        level: Canvas | None = self.level
        while level is not None and str(first_value(node)) not in level.sets:
            level = level.outer
        if level is None:
            return Brought()
        self.level = level
        return self._enter(next(iter(level.sets[str(first_value(node))]["inputs"]), None))


def bypass(level: Canvas, node: dict, slot: int, what: str) -> dict | None:
    """The input that a bypassed node's output passes on to an input of type `what`.

    The one at the same place where types allow, else the first of the same type, else the first that fits.
    ValueError for an output that is not there.
    """
    inputs, outputs = node["inputs"], node["outputs"]
    if slot >= len(outputs):
        raise ValueError(f"{level.called(node)} has no output numbered {slot}, which a wire comes from; {SAVE}")
    given = str(outputs[slot].get("type"))
    if what in ("*", ""):
        return inputs[slot] if slot < len(inputs) else next(iter(inputs), None)
    fitting = [i for i in inputs if fits(str(i.get("type")), given) and fits(str(i.get("type")), what)]
    if slot < len(inputs) and any(i is inputs[slot] for i in fitting):
        return inputs[slot]
    return next((i for i in inputs if i.get("type") == what), next(iter(fitting), None))


def fits(one: str, other: str) -> bool:
    """Whether a wire may join sockets of two types, as the editor says: unions, any case, "*" for anything."""
    if one in ("*", "") or other in ("*", ""):
        return True
    return bool({t.strip() for t in one.lower().split(",")} & {t.strip() for t in other.lower().split(",")})


def shown_value(level: Canvas, slot: int, classes: dict):
    """What is set for an input of a subgraph on the node that stands for it; None where no widget is behind it.

    Such values lie in its widgets_values, in the order of those inputs that lead to a widget. An older editor's files
    have none there and keep all values inside: then it is the widget's own.
    """
    behind = {i: found for i in range(len(listed(level.source, "inputs"))) if (found := _widget_behind(level, i))}
    if slot not in behind:
        return None
    saved, place = (level.node or {}).get("widgets_values"), [*behind].index(slot)
    if isinstance(saved, list) and place < len(saved):
        return saved[place]
    node, name = behind[slot]
    return widget_values(node, classes[node["type"]]).get(name) if node["type"] in classes else None


def _widget_behind(level: Canvas, slot: int) -> tuple[dict, str] | None:
    """The first node and widget that an input of a subgraph is wired to, however many levels below."""
    todo = [(level, slot)]
    while todo:
        level, slot = todo.pop()
        for _, source, start, target, place, *_ in level.links.values():
            if source != GIVEN or start != slot or str(target) not in level.nodes:
                continue
            node = level.nodes[str(target)]
            if not isinstance(place, int) or not 0 <= place < len(node["inputs"]):
                continue
            entry, inner = node["inputs"][place], level.inner.get(str(target))
            if inner is None and entry.get("widget"):
                marked = entry["widget"].get("name") if isinstance(entry["widget"], dict) else None
                return node, str(marked or entry.get("name"))
            names = [i.get("name") for i in listed(inner.source, "inputs") if isinstance(i, dict)] if inner else []
            if inner and entry.get("name") in names:
                todo.append((inner, names.index(entry.get("name"))))
    return None


def convert(source: dict, classes: dict) -> tuple[dict, dict[str, dict[str, str]]]:
    """A UI workflow in the API format, {id: {class_type, inputs, _meta}}; and why inputs get nothing, by node."""
    prompt, cut = {}, {}
    nodes = list(open_levels(source))
    for level, node in nodes:
        if node["type"] in UNSEEN:
            continue
        kind, name = classes.get(node["type"]), level.prefix + str(node["id"])
        inputs = {n: _wrapped(v) for n, v in widget_values(node, kind).items()} if kind else {}
        for entry in node["inputs"]:
            brought, called = Trace(level, entry, classes).end(), str(entry.get("name"))
            if brought.wire is not None:
                inputs[called] = brought.wire
            elif brought.value is not None:
                inputs[called] = _wrapped(brought.value)
            elif brought.why:
                cut.setdefault(name, {})[called] = brought.why
        title = node.get("title") if isinstance(node.get("title"), str) else ""
        prompt[name] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title or node["type"]}}
    return prompt, cut


def _wrapped(value):
    """A list as a value, so that nobody takes it for a wire."""
    return {"__value__": value} if isinstance(value, list) else value
