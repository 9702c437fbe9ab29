"""Workflows as ComfyUI's editor saves them: levels of nodes and links, the file's own and one per subgraph in use.

Ids of inner nodes are "outer:inner". Muted and bypassed subgraphs are not entered.
"""

from __future__ import annotations

from collections.abc import Iterator

MUTED, BYPASSED = 2, 4
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
MOST = 20_000  # nodes, of all levels
SAVE = "save it in ComfyUI again"


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


class Canvas:
    """One level: nodes by id, links by id, the subgraphs in it by the id of the node that stands for them."""

    def __init__(self, source: dict, node: dict | None = None, outer: Canvas | None = None):
        nodes = [
            read_node(entry, place) for place, entry in enumerate(listed(source, "nodes")) if entry not in (None, {})
        ]
        self.source, self.node, self.outer = source, node, outer
        self.prefix: str = f"{outer.prefix}{node['id']}:" if outer and node else ""
        self.nodes = {str(entry["id"]): entry for entry in nodes}
        links = (read_link(link) for link in listed(source, "links") if link is not None)
        self.links = {link[0]: link for link in links}
        self.inner: dict[str, Canvas] = {}
        self.sets = {str(first_value(entry)): entry for entry in nodes if entry["type"] == "SetNode"}

    def names(self) -> str:
        """The levels that lead here, for messages."""
        return f" in the subgraph {self.source.get('name') or self.source.get('id')!r}" if self.outer else ""

    def within(self, definition: dict) -> bool:
        """Whether this level, or one around it, is of that subgraph."""
        level: Canvas | None = self
        while level is not None and level.source is not definition:
            level = level.outer
        return level is not None

    def called(self, node: dict) -> str:
        """A node as messages name it."""
        title = node.get("title")
        kinds = [title if isinstance(title, str) else "", node["type"]]
        return f"node {self.prefix}{node['id']} ({', '.join(dict.fromkeys(filter(None, kinds)))})"


def open_levels(source: dict) -> Iterator[tuple[Canvas, dict]]:
    """All nodes of a workflow that may run, those inside subgraphs too, each with its level.

    ValueError for what is no node or link, a subgraph in itself, and more nodes than any workflow has.
    """
    definitions = _definitions(source)
    top = Canvas(source)
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
            inner = level.inner[str(node["id"])] = Canvas(definition, node, level)
            todo.extend((inner, entry) for entry in reversed(inner.nodes.values()))


def _definitions(source: dict) -> dict[str, dict]:
    """The subgraphs that a file defines, by id."""
    held = source.get("definitions")
    found = held.get("subgraphs") if isinstance(held, dict) else None
    found = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return {one["id"]: one for one in found if isinstance(one.get("id"), str)}
