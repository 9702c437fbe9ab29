"""Workflows as ComfyUI's editor saves them, and their way to the API format: what the frontend's graphToPrompt does.

A workflow is levels of nodes and links: its own, and one for each node that stands for a subgraph. Ids of inner nodes
are "outer:inner". Muted nodes and what is in them are left out, bypassed ones wired through, Reroute, PrimitiveNode
and the Set and Get nodes of KJNodes resolved, and a value that a subgraph shows outside is the one set there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .widgets import widget_values

NOTES = ("Note", "MarkdownNote")
UNSEEN = (*NOTES, "Reroute", "PrimitiveNode", "SetNode", "GetNode")  # nodes of the editor alone
MUTED, BYPASSED = 2, 4
GIVEN, RETURNED = -10, -20  # the nodes inside a subgraph that stand for its inputs and outputs
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
MOST = 20_000  # nodes, of all levels
SAVE = "save it in ComfyUI again"


class Brought(NamedTuple):
    """What a link brings: a wire ["id", slot], or a value; or why nothing arrives."""

    wire: list | None = None
    value: object = None
    why: str = ""


def listed(source: dict, key: str) -> list:
    """The list under a key; null and nothing are an empty one. ValueError for anything else."""
    found = source.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"the workflow's {key} are no list; {SAVE}")
    return found


def read_node(node, place: int) -> dict:
    """A UI node with its lists in place. ValueError for what is none; place: where it stands, from 0."""
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        raise ValueError(f"the workflow's node number {place + 1} is none: it has no type; {SAVE}")
    if type(node.get("id")) not in (int, str):
        raise ValueError(f"the workflow's node number {place + 1} ({node['type']}) has no id; {SAVE}")
    sockets = {key: listed(node, key) for key in ("inputs", "outputs")}
    if strange := [key for key, entries in sockets.items() if not all(isinstance(e, dict) for e in entries)]:
        raise ValueError(f"node {node['id']} ({node['type']}): its {strange[0]} are none; {SAVE}")
    values = node.get("widgets_values")
    return {**node, **sockets, "widgets_values": values if isinstance(values, (list, dict)) else []}


def first_value(node: dict):
    """What a PrimitiveNode gives, the name of a SetNode or GetNode: its first value; None without values."""
    values = node["widgets_values"]
    return values[0] if isinstance(values, list) and values else None


def read_link(link) -> list:
    """A link as [id, from, slot, to, slot, type]; subgraphs and newer files write objects. ValueError for no link."""
    if isinstance(link, dict):
        link = [link.get(key) for key in LINK]
    if not isinstance(link, list) or len(link) < 5 or not all(type(v) in (int, str) for v in link[:2]):
        raise ValueError(f"the workflow's link {str(link)[:60]} is none; {SAVE}")
    if type(link[2]) is not int or link[2] < 0:
        raise ValueError(f"the workflow's link {link[0]} comes from no output; {SAVE}")
    return link


class Level:
    """One level: nodes by id, links by id, the subgraphs in it by the id of the node that stands for them."""

    def __init__(self, source: dict, node: dict | None = None, outer: Level | None = None):
        nodes = [read_node(entry, place) for place, entry in enumerate(listed(source, "nodes")) if entry is not None]
        self.source, self.node, self.outer = source, node, outer
        self.prefix: str = f"{outer.prefix}{node['id']}:" if outer and node else ""
        self.nodes = {str(entry["id"]): entry for entry in nodes}
        links = (read_link(link) for link in listed(source, "links") if link is not None)
        self.links = {link[0]: link for link in links}
        self.inner: dict[str, Level] = {}
        self.sets = {str(first_value(entry)): entry for entry in nodes if entry["type"] == "SetNode"}

    def names(self) -> str:
        """The levels that lead here, for messages."""
        return f" in the subgraph {self.source.get('name') or self.source.get('id')!r}" if self.outer else ""

    def within(self, definition: dict) -> bool:
        """Whether this level, or one around it, is of that subgraph."""
        level: Level | None = self
        while level is not None and level.source is not definition:
            level = level.outer
        return level is not None

    def called(self, node: dict) -> str:
        """A node as messages name it."""
        title = node.get("title")
        kinds = [title if isinstance(title, str) else "", node["type"]]
        return f"node {self.prefix}{node['id']} ({', '.join(dict.fromkeys(filter(None, kinds)))})"


def open_levels(source: dict) -> Iterator[tuple[Level, dict]]:
    """All nodes of a workflow that may run, those inside subgraphs too, each with its level.

    ValueError for what is no node or link, a subgraph in itself, and more nodes than any workflow has.
    """
    definitions = _definitions(source)
    top = Level(source)
    todo, count = [(top, node) for node in reversed(top.nodes.values())], 0
    while todo:
        level, node = todo.pop()
        if node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if (count := count + 1) > MOST:
            raise ValueError(f"the workflow's subgraphs come to more than {MOST} nodes; {SAVE}")
        definition = definitions.get(node["type"])
        if definition is None:
            yield level, node
        elif level.within(definition):
            raise ValueError(f"{level.called(node)}: the subgraph {definition.get('name')!r} holds itself")
        else:
            inner = level.inner[str(node["id"])] = Level(definition, node, level)
            todo.extend((inner, entry) for entry in reversed(inner.nodes.values()))


def _definitions(source: dict) -> dict[str, dict]:
    """The subgraphs that a file defines, by id."""
    held = source.get("definitions")
    found = held.get("subgraphs") if isinstance(held, dict) else None
    found = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return {one["id"]: one for one in found if isinstance(one.get("id"), str)}


class Trace:
    """Follows a wire against its direction, through all that is no node to the executor, up and down the levels."""

    def __init__(self, level: Level, entry: dict):
        self.level, self.link, self.what = level, entry.get("link"), str(entry.get("type", "*"))

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
            return Brought(value=first_value(node))
        if node.get("mode", 0) == MUTED:
            return Brought(why=f"{level.called(node)} is muted")
        if node.get("mode", 0) == BYPASSED:
            return self._enter(bypass(level, node, slot, self.what), keep=False)
        if str(source) in level.inner:
            return self._inwards(level.inner[str(source)], slot)
        if node["type"] == "Reroute":
            return self._enter(next(iter(node["inputs"]), None))
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
            return Brought(value=shown_values(level).get(slot))
        self.level = outer
        return self._enter(entry, keep=False)

    def _inwards(self, inner: Level, slot: int) -> Brought | None:
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
        level: Level | None = self.level
        while level is not None and str(first_value(node)) not in level.sets:
            level = level.outer
        if level is None:
            return Brought()
        self.level = level
        return self._enter(next(iter(level.sets[str(first_value(node))]["inputs"]), None))


def bypass(level: Level, node: dict, slot: int, what: str) -> dict | None:
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


def shown_values(level: Level) -> dict[int, object]:
    """Input slot of a subgraph -> the value set on the node that stands for it.

    They lie in widgets_values in the order of those inputs that lead to a widget. None of an older editor's files,
    which kept all values inside.
    """
    node = level.node or {}
    saved = node.get("widgets_values")
    values = list(saved) if isinstance(saved, list) else []
    slots = [slot for slot in range(len(listed(level.source, "inputs"))) if _leads_to_widget(level, slot)]
    return dict(zip(slots, values, strict=False))


def _leads_to_widget(level: Level, slot: int) -> bool:
    todo = [(level, slot)]
    while todo:
        level, slot = todo.pop()
        for _, source, start, target, place, *_ in level.links.values():
            if source != GIVEN or start != slot or str(target) not in level.nodes:
                continue
            inputs = level.nodes[str(target)]["inputs"]
            if not isinstance(place, int) or not 0 <= place < len(inputs):
                continue
            inner = level.inner.get(str(target))
            if inner is None and inputs[place].get("widget"):
                return True
            names = [i.get("name") for i in listed(inner.source, "inputs") if isinstance(i, dict)] if inner else []
            if inner and inputs[place].get("name") in names:
                todo.append((inner, names.index(inputs[place].get("name"))))
    return False


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
            brought = Trace(level, entry).end()
            if brought.wire is not None:
                inputs[entry.get("name")] = brought.wire
            elif brought.value is not None:
                inputs[entry.get("name")] = _wrapped(brought.value)
            elif brought.why:
                cut.setdefault(name, {})[str(entry.get("name"))] = brought.why
        title = node.get("title") if isinstance(node.get("title"), str) else ""
        prompt[name] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title or node["type"]}}
    return prompt, cut


def _wrapped(value):
    """A list as a value, so that nobody takes it for a wire."""
    return {"__value__": value} if isinstance(value, list) else value
