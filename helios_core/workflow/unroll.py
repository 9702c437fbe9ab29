"""A loop written out: its body once per chunk, chunk after chunk, in a way that suits ComfyUI's cache.

The cache knows a node by its class, its inputs and all that is upstream of it. So nothing in a copy tells how many
chunks there are, and between two chunks stands, for each thing that goes round, an end that hands it on: a step. What
it becomes is no input of it; instead it has a digest of the loop, as far as that bears on what it hands on. So what is
upstream of a chunk stays the same size. Along wires it would grow, and time and memory with the square of the chunks.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from . import format as fmt
from .loops import CARRIED, END, GIVEN, RESULTS, Loop, check_count, check_wires, find
from .values import title

HAND_ON = 0  # instead of how many chunks: an end that is a step


def unroll(graph: dict, end: str, count: int, classes: dict) -> tuple[dict, tuple]:
    """The body of the loop that ends at `end`, `count` times over: new nodes by id, and a value per output of the end.

    A value is a link, a constant, or None where nothing comes. classes: id -> node class, for the types of wires.
    ValueError names the nodes of a loop that cannot be run.
    """
    check_count(count)
    loop = find(graph, end)
    check_wires(graph, loop, classes)
    values = {name: v for name, v in graph[loop.start]["inputs"].items() if name in CARRIED}
    ends = {name: v for name, v in graph[end]["inputs"].items() if name in RESULTS}
    round_names = _read(graph, loop) & set(ends)
    threads = [_thread(graph, loop, name, classes) for name in CARRIED if name in round_names]
    nodes: dict = {}
    for index in range(count):
        place = f"{end}.{index + 1}."
        given = {**values, **(_steps(nodes, f"{end}.{index}.", threads, values) if index else {}), "index": index}
        nodes |= {_named(place, node): _copy(node, graph, loop, place, given) for node in loop.body}
        values = {**given, **{name: _moved(value, loop, place, given) for name, value in ends.items()}}
    return nodes, tuple(values.get(name) for name in RESULTS)


def _copy(node: str, graph: dict, loop: Loop, place: str, given: dict) -> dict:
    """One node of the body for one chunk. An input whose value does not come yet, as the first clip, is left out."""
    entry = graph[node]
    inputs = {name: _moved(value, loop, place, given) for name, value in entry["inputs"].items()}
    return {
        "class_type": entry["class_type"],
        "inputs": {name: value for name, value in inputs.items() if value is not None},
        "override_display_id": node,
        "_meta": {"title": f"{title(entry)}, {given['index'] + 1}"},
    }


def _moved(value, loop: Loop, place: str, given: dict):
    """An input's value for one chunk: wires into the body lead to the chunk's copies, those to the start to `given`."""
    if not fmt.is_link(value):
        return value
    source, slot = value
    if source == loop.start:
        return given.get(GIVEN[slot])
    return [_named(place, source), slot] if source in loop.body else value


def _named(place: str, node: str) -> str:
    """The id of a node's copy. A colon would tell the frontend that a subgraph of that name is open."""
    return place + node.replace(":", ".")


class Thread(NamedTuple):
    """One of the things that go round: what it hangs on, in words and as wires to nodes outside the loop.

    volatile: some of its nodes decide for themselves whether they have changed, which no words can tell.
    """

    name: str
    end: str
    words: str
    outside: dict[str, list]
    volatile: bool


def _thread(graph: dict, loop: Loop, name: str, classes: dict) -> Thread:
    nodes, names = _upstream(graph, loop, name)
    ends = {n: [graph[i]["inputs"].get(n) for i in (loop.start, loop.end)] for n in sorted(names)}
    parts = {n: [graph[n]["class_type"], graph[n]["inputs"]] for n in sorted(nodes)}
    given = [v for pair in ends.values() for v in pair] + [v for _, inputs in parts.values() for v in inputs.values()]
    links = {f"{v[0]} {v[1]}": v for v in given if fmt.is_link(v) and v[0] not in (loop.start, *loop.body)}
    words = json.dumps([name, ends, parts], sort_keys=True, default=str)
    return Thread(name, loop.end, words, links, any(_decides(classes[graph[n]["class_type"]]) for n in nodes))


def _upstream(graph: dict, loop: Loop, name: str) -> tuple[set[str], set[str]]:
    """The nodes of the body that one of the things that go round hangs on, and which of these things, itself first."""
    nodes, names, todo = set(), {name}, [graph[loop.end]["inputs"].get(name)]
    while todo:
        value = todo.pop()
        if not fmt.is_link(value):
            continue
        given = GIVEN[value[1]] if value[0] == loop.start else None
        if given in CARRIED and given not in names:
            names.add(given)
            todo.append(graph[loop.end]["inputs"].get(given))
        elif value[0] in loop.body and value[0] not in nodes:
            nodes.add(value[0])
            todo.extend(graph[value[0]]["inputs"].values())
    return nodes, names


def _decides(kind) -> bool:
    """Whether a node class has a say in what the cache knows it by. What ComfyUI's own base class says is nothing."""
    own = [vars(c) for c in kind.__mro__ if not c.__module__.startswith("comfy_api.")]
    return any(name in c for c in own for name in ("IS_CHANGED", "fingerprint_inputs", "NOT_IDEMPOTENT"))


def _steps(nodes: dict, place: str, threads: list[Thread], values: dict) -> dict:
    """Adds the steps after a chunk; links to what they give, by name.

    Each becomes what it gives, and behind that what else goes round, so that it waits for all of it: otherwise every
    chunk would be sampled before the first one is decoded.
    """
    found = {}
    for thread in threads:
        step, value = place + thread.name, values[thread.name]
        words = hashlib.sha256(f"{place} {thread.words}".encode()).hexdigest()
        source = {"source": value} if thread.volatile else {}
        gives = [value if name == thread.name else None for name in RESULTS]
        nodes[step] = {
            "class_type": END,
            "inputs": {"loop": HAND_ON, "words": words, **thread.outside, **source},
            "becomes": (*gives, *(values[other.name] for other in threads)),
            "override_display_id": thread.end,
        }
        found[thread.name] = [step, RESULTS.index(thread.name)]
    return found


def _read(graph: dict, loop: Loop) -> set[str]:
    """What the body, or the end, takes from the start."""
    given = [value for node in (*loop.body, loop.end) for value in graph[node]["inputs"].values()]
    return {GIVEN[value[1]] for value in given if fmt.is_link(value) and value[0] == loop.start}
