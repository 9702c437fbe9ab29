"""Batches: a file holds one video, so several that go into one ChunkConcat are refused before they are sampled."""

from __future__ import annotations

from ..helios_core.workflow import current, loops
from . import place

JOINT = ("ChunkConcat", "latent")
TAKEN = "history"  # the input by which a batch comes into the nodes below
GIVES = {"DMDPyramidSample": (0, 1), "AntiDrift": (0, 1)}  # class -> its outputs that are a batch then


def check_batch(count: int, what: str) -> None:
    """ValueError where the running node would give `count` videos, and they go into a ChunkConcat with no node between
    that picks one. what: the input that the batch came by, in words."""
    if count == 1:
        return
    nodes, node = workflow()
    if node and (joint := joint_of(nodes, node)):
        raise ValueError(
            f"{what}: a batch of {count} videos, but ChunkConcat (node {joint}), where its latents go, takes one. Put "
            "Latent From Batch before ChunkConcat, one for each video, or make one video"
        )


def workflow() -> tuple[dict, str]:
    """The workflow's nodes by id, and the one of them that runs or that the running one is shown on; ({}, "") where
    that is not known."""
    if run := current():
        return run.prompt, run.node
    found = place.running()
    if found is None:
        return {}, ""
    graph, node = found
    return {i: graph.get_node(i) for i in graph.all_node_ids()}, graph.get_display_node_id(node)


def joint_of(nodes: dict, node: str) -> str | None:
    """The first ChunkConcat that a batch out of a node reaches as it is, or None."""
    found, todo = set(), [(node, slot) for slot in GIVES.get(nodes[node]["class_type"], (0,))]
    while todo:
        wire = todo.pop()
        for reader, entry in nodes.items():
            kind = entry["class_type"]
            for name in (n for n, value in entry["inputs"].items() if value == [*wire]):
                if (kind, name) == JOINT:
                    return reader
                new = {(reader, slot) for slot in _handed_on(kind, name)} - found
                found |= new
                todo += new
    return None


def _handed_on(kind: str, name: str) -> tuple[int, ...]:
    """The outputs by which a node gives on the batch that comes by an input."""
    given = {loops.START: loops.GIVEN, loops.END: loops.RESULTS}.get(kind, ())
    return (given.index(name),) if name in given else GIVES.get(kind, ()) if name == TAKEN else ()
