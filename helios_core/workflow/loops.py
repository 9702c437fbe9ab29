"""Loops in a workflow: which nodes stand between HeliosLoopStart and HeliosLoopEnd, and which loops are refused.

Pure graph logic, for ComfyUI's executor and for the workflow runner alike. A graph here is {id: {"class_type": ...,
"inputs": {name: value or link}}}, the nodes of one level: the workflow's own, or those that one node became. The body
is all that hangs on the start and not on the end, so whatever shows or saves something there does so per chunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from . import format as fmt
from .values import fits, label

START, END = "HeliosLoopStart", "HeliosLoopEnd"
VALUES = tuple(f"value_{i}" for i in range(1, 5))
CARRIED = ("history", "clip", *VALUES)
GIVEN = ("loop", "history", "clip", "index", *VALUES)  # what the start gives, in order
RESULTS = ("history", "clip", "video", *VALUES)  # what the end gives, in order
MAX_CHUNKS = 1000
OPEN_CHUNKS = 250  # of a loop that goes on until it is ended: ComfyUI takes long to lay out more


class Loop(NamedTuple):
    """A start, its end, and the nodes of the body, by id."""

    start: str
    end: str
    body: tuple[str, ...]


def find(graph: dict, end: str) -> Loop:
    """The loop that ends at `end`. ValueError unless start, body and end belong together, in the body's loops too."""
    start = start_of(graph, end)
    if start is None:
        raise ValueError(f"{label(end, graph)}: wire loop to the loop of a HeliosLoopStart")
    if len(ends := ends_of(graph, start)) > 1:
        raise ValueError(f"{label(start, graph)} has {len(ends)} HeliosLoopEnd, wanted one; give each its own start")
    readers = _readers(graph)
    inside, behind = _reached(readers, start), _reached(readers, end)
    loop = Loop(start, end, tuple(node for node in graph if node in inside and node not in behind | {end}))
    if not loop.body:
        raise ValueError(f"{label(start, graph)}: nothing stands between it and its HeliosLoopEnd")
    _check_leaks(graph, loop, behind)
    for node in loop.body:
        _check_nested(graph, loop, node)
    return loop


def start_of(graph: dict, end: str) -> str | None:
    """The start that an end is wired to, or None."""
    link = graph[end]["inputs"].get("loop")
    found = fmt.is_link(link) and link[0] in graph and graph[link[0]]["class_type"] == START and link[1] == 0
    return link[0] if found else None


def ends_of(graph: dict, start: str) -> list[str]:
    """The ends wired to a start."""
    return [node for node in graph if graph[node]["class_type"] == END and start_of(graph, node) == start]


def is_inside(graph: dict, end: str) -> bool:
    """Whether a loop stands in the body of another one, which then copies it: the one on the canvas does not run."""
    links = {n: [v[0] for v in entry["inputs"].values() if fmt.is_link(v)] for n, entry in graph.items()}
    before = _reached(links, end)
    closed = {start_of(graph, node) for node in before | {end} if node in graph and graph[node]["class_type"] == END}
    return any(graph[node]["class_type"] == START and node not in closed for node in before if node in graph)


def check_start(graph: dict, start: str, *, outer: bool) -> None:
    """ValueError unless one end is wired to a start and, on the canvas (`outer`), something uses what that gives."""
    ends = ends_of(graph, start)
    if not ends:
        raise ValueError(f"{label(start, graph)} has no HeliosLoopEnd: wire its loop to one")
    find(graph, ends[0])
    if outer and ends[0] not in _readers(graph):
        raise ValueError(f"{label(ends[0], graph)} is wired to nothing, so the loop would not run: use what it gives")


def check_count(count: int) -> None:
    """ValueError unless a loop may run so often."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CHUNKS:
        raise ValueError(f"chunks: wanted a whole number from 1 to {MAX_CHUNKS}, got {count!r}")


def count_of(chunks: int) -> int:
    """How often a loop's body runs by its widget: 0 is until the score ends the video, OPEN_CHUNKS at most."""
    return OPEN_CHUNKS if chunks == 0 and not isinstance(chunks, bool) else chunks


def _check_leaks(graph: dict, loop: Loop, behind: Iterable[str]) -> None:
    within, comes, lacks = {loop.start, *loop.body}, False, ""
    for node in behind:
        for name, value in graph[node]["inputs"].items():
            if fmt.is_link(value) and value[0] in within:
                raise ValueError(
                    f"{label(node, graph)}.{name} is wired to {label(value[0], graph)}, inside a loop, past its "
                    f"{label(loop.end, graph)}. Wire it through one of the values of that, which give the last chunk's."
                )
            if fmt.is_link(value) and value[0] == loop.end:
                if _comes(RESULTS[value[1]], graph, loop):
                    comes = True
                    continue
                lacks = (
                    f"{label(node, graph)}.{name} is wired to {RESULTS[value[1]]} of {label(loop.end, graph)}, but "
                    f"nothing is wired into that"
                )
    if lacks and not comes:  # else what hangs on it alone does not run: a node of the body is muted or bypassed
        raise ValueError(lacks)


def _check_nested(graph: dict, loop: Loop, node: str) -> None:
    kind = graph[node]["class_type"]
    partners = [start_of(graph, node)] if kind == END else ends_of(graph, node) if kind == START else [node]
    if partners and not all(partner in loop.body for partner in partners):
        raise ValueError(
            f"the loops of {label(loop.start, graph)} and {label(node, graph)} cross: put one wholly into the body of "
            "the other, and wire what leaves the inner one through its HeliosLoopEnd; or keep them apart"
        )
    if kind == END:
        find(graph, node)


def _comes(name: str, graph: dict, loop: Loop) -> bool:
    return name in graph[loop.end]["inputs"] or (name in CARRIED and name in graph[loop.start]["inputs"])


def check_wires(graph: dict, loop: Loop, classes: dict) -> None:
    """ValueError where what is carried does not fit what takes it, in the first chunk or in the later ones."""
    first, later = graph[loop.start]["inputs"], graph[loop.end]["inputs"]
    for name in CARRIED:
        kinds = [_type(inputs[name], graph, classes) for inputs in (first, later) if name in inputs]
        if len(kinds) == 2 and not fits(*kinds):
            raise ValueError(
                f"{name}: {label(loop.start, graph)} begins with {kinds[0]}, {label(loop.end, graph)} goes on with "
                f"{kinds[1]}; both must be of one type"
            )
    for node in (*loop.body, loop.end):
        for name, value in graph[node]["inputs"].items():
            if fmt.is_link(value) and value[0] == loop.start:
                _check_reader(node, name, GIVEN[value[1]], graph, loop, classes)


def _check_reader(node: str, name: str, given: str, graph: dict, loop: Loop, classes: dict) -> None:
    """ValueError where an input of the body cannot take what the start gives it."""
    kind, where = classes[graph[node]["class_type"]], f"{label(node, graph)}.{name}"
    first, later = graph[loop.start]["inputs"], graph[loop.end]["inputs"]
    if given == "loop" and graph[node]["class_type"] != END:
        raise ValueError(f"{where}: the loop of {label(loop.start, graph)} is for its HeliosLoopEnd alone")
    if given in CARRIED and given not in first:
        if given not in later:
            raise ValueError(f"{where}: {given} of {label(loop.start, graph)} is wired to nothing, here and at its end")
        if name in kind.INPUT_TYPES().get("required", {}):
            raise ValueError(f"{where}: the first chunk needs it; wire {given} of {label(loop.start, graph)}")
    wanted = fmt.inputs_of(kind).get(name, ("*",))[0]
    for inputs in (first, later):
        if given in inputs and not fits(have := _type(inputs[given], graph, classes), wanted):
            raise ValueError(f"{where}: wanted {wanted}, {given} of {label(loop.start, graph)} carries {have}")


def _type(value, graph: dict, classes: dict) -> str:
    """The type that a link brings; "*" of what is not known here."""
    if not fmt.is_link(value) or value[0] not in graph:
        return "*"
    kind = classes[graph[value[0]]["class_type"]].RETURN_TYPES[value[1]]
    return str(kind) if isinstance(kind, str) else "*"


def _readers(graph: dict) -> dict[str, list[str]]:
    """id -> the nodes wired to its outputs."""
    found: dict[str, list[str]] = {}
    for node, entry in graph.items():
        for value in entry["inputs"].values():
            if fmt.is_link(value):
                found.setdefault(value[0], []).append(node)
    return found


def _reached(following: dict, node: str) -> set[str]:
    """All nodes downstream of one, where `following` are its readers; upstream, where they are what it reads."""
    found: set[str] = set()
    todo = [node]
    while todo:
        for other in following.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found
