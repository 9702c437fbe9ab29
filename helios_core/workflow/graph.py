"""Runs the nodes of a workflow, and those that they become: ComfyUI's executor, as far as nodes can tell.

A node may return {"result": links, "expand": nodes}, as a loop's end does: it then stands for those nodes. An input
that is declared lazy is not run for; one that is declared rawLink gets the link itself. "becomes" in a node's entry
holds links that it is going to become: no inputs, but their results are kept for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import format as fmt
from .values import label, title

BLOCKED = object()  # an output that keeps the nodes wired to it from running


class Graph:
    """All nodes of a run by id, and what they become. Nodes are given it as ComfyUI's DYNPROMPT."""

    def __init__(self, prompt: dict, cut: dict[str, dict[str, str]] | None = None):
        """cut: node -> input -> why nothing comes though something is wired to it."""
        self._nodes, self._parents, self._shown, self.cut = dict(prompt), {}, {}, cut or {}

    def get_node(self, node: str) -> dict:
        """A node's entry, {class_type, inputs}."""
        return self._nodes[node]

    def all_node_ids(self) -> set[str]:
        """Those of the workflow, and those that they became."""
        return set(self._nodes)

    def get_parent_node_id(self, node: str) -> str | None:
        """The node that became this one; None for those of the workflow itself."""
        return self._parents.get(node)

    def get_display_node_id(self, node: str) -> str:
        """The workflow's own node that this one is shown on."""
        while node in self._shown:
            node = self._shown[node]
        return node

    def grow(self, parent: str, nodes: dict) -> None:
        """The nodes that `parent` becomes."""
        for node, entry in nodes.items():
            self._nodes[node] = entry
            self._parents[node] = parent
            self._shown[node] = entry.get("override_display_id", parent)


def execute(graph: Graph, classes: dict, outputs: list[str], hidden: dict, starts: Callable[[str, str], None]) -> None:
    """Calls every node that outputs need once; a result is let go after its last use. starts: told of each node."""
    results: dict[str, tuple] = {}
    become: dict[str, tuple] = {}
    kept: dict[str, list[str]] = {}  # what a node still needs though it ran: wires it handed on unread
    todo = order(graph, classes, outputs, results)
    while todo:
        node = todo.pop(0)
        if node in become:
            results[node] = tuple(_value(v, results) for v in become.pop(node))
            del kept[node]
        else:
            made = _call(node, graph, classes, results, hidden, starts)
            if "expand" in made:
                graph.grow(node, made["expand"])
                become[node], kept[node] = made["result"], _sources(made["result"])
                saving = [n for n in made["expand"] if is_output(graph.get_node(n), classes)]
                first = order(graph, classes, [*saving, *kept[node]], results)
                todo = [*first, node, *(n for n in todo if n not in first)]
            else:
                results[node], kept[node] = made["result"], _sources(made["unread"])
        later = _needed(graph, todo, results, kept)
        results = {n: r for n, r in results.items() if n in later}


def order(graph: Graph, classes: dict, wanted: list[str], results: dict) -> list[str]:
    """The nodes to run for `wanted`, each after what it needs; none that has a result."""
    found: dict[str, None] = {}
    for node in wanted:
        _visit(node, graph, classes, results, found)
    return list(found)


def _visit(node: str, graph: Graph, classes: dict, results: dict, found: dict) -> None:
    path = [(node, iter(_eager(node, graph, classes)))]
    while path:
        last, wires = path[-1]
        if last in found or last in results or (first := next(wires, None)) is None:
            path.pop()
            if last not in results:
                found.setdefault(last)
        else:
            path.append((first, iter(_eager(first, graph, classes))))


def _eager(node: str, graph: Graph, classes: dict) -> list[str]:
    """The nodes that a node cannot run without."""
    entry = graph.get_node(node)
    inputs = fmt.inputs_of(classes[entry["class_type"]])
    wired = {name: value[0] for name, value in entry["inputs"].items() if fmt.is_link(value)}
    return [source for name, source in wired.items() if not inputs.get(name, ("*", {}))[1].get("lazy")]


def _needed(graph: Graph, todo: list[str], results: dict, kept: dict) -> set[str]:
    """The nodes that those still to run are wired to, lazily or not, however far back."""
    found: set[str] = set()
    stack = list(todo)
    while stack:
        node = stack.pop()
        entry = graph.get_node(node)
        wires = () if node in results else (*entry["inputs"].values(), *entry.get("becomes", ()))
        new = set(kept[node] if node in kept else _sources(wires)) - found
        found |= new
        stack.extend(new)
    return found


def _sources(given) -> list[str]:
    return [value[0] for value in given if fmt.is_link(value)]


def is_output(entry: dict, classes: dict) -> bool:
    """Whether a node saves or shows something."""
    return getattr(classes[entry["class_type"]], "OUTPUT_NODE", False)


def _value(value, results: dict):
    return results[value[0]][value[1]] if fmt.is_link(value) else value


class _named:
    """What is raised inside names the node: a ValueError in its message, all else in a note."""

    def __init__(self, graph: Graph, node: str):
        own = graph.get_display_node_id(node)
        self.label = label(own, {own: graph.get_node(own)})
        self.cut = "".join(f"; {name}: {why}" for name, why in graph.cut.get(own, {}).items())

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        if type(error) is ValueError and self.label not in str(error):
            raise ValueError(f"{self.label}: {error}{self.cut}") from error
        if isinstance(error, Exception):
            error.__notes__ = [*getattr(error, "__notes__", ()), self.label]


def _call(node: str, graph: Graph, classes: dict, results: dict, hidden: dict, starts: Callable) -> dict:
    """What a node returns, as {"result": tuple, "unread": inputs} and, where it becomes others, "expand"."""
    entry = graph.get_node(node)
    kind = classes[entry["class_type"]]
    raw = {name for name, (_, options) in fmt.inputs_of(kind).items() if options.get("rawLink")}
    unread = [value for name, value in entry["inputs"].items() if name in raw]
    given = {name: v if name in raw else _value(v, results) for name, v in entry["inputs"].items()}
    if any(value is BLOCKED for value in given.values()):
        return {"result": (BLOCKED,) * len(kind.RETURN_TYPES), "unread": unread}
    for name, what in kind.INPUT_TYPES().get("hidden", {}).items():
        given[name] = {"UNIQUE_ID": node, "DYNPROMPT": graph}.get(what, hidden.get(what))
    starts(graph.get_display_node_id(node), title(entry))
    with _named(graph, node):
        result: Any = getattr(kind(), kind.FUNCTION)(**given)
    grown = {"expand": result["expand"]} if isinstance(result, dict) and "expand" in result else {}
    result = result.get("result", ()) if isinstance(result, dict) else result
    return {"result": tuple(result or ()), "unread": unread, **grown}
