"""Nodes that become other nodes: the graph they stand in, in ComfyUI or in the workflow runner."""

from __future__ import annotations

from . import core, host


def expand(graph, end: str, count: int):
    """What the end of a loop becomes: the body once per chunk. Nothing, where an outer loop copies this one."""
    if count == core.workflow.unroll.HAND_ON:
        return {"result": graph.get_node(end)["becomes"], "expand": {}}
    nodes = level(graph, end)
    if core.workflow.loops.is_inside(nodes, end):
        return (blocked(),) * len(core.workflow.loops.RESULTS)
    grown, results = core.workflow.unroll.unroll(nodes, end, count, classes())
    blame_shown(graph)
    return {"result": tuple(blocked() if value is None else value for value in results), "expand": grown}


def check_start(graph, start: str) -> None:
    """ValueError unless a loop's start has an end, and what that gives is used; and where no node can become others."""
    if forgets_ancestors():
        raise ValueError(
            "this version of ComfyUI runs no loops with --cache-none, for its cache fails where a node becomes others; "
            "start it without, or update it"
        )
    core.workflow.loops.check_start(level(graph, start), start, outer=graph.get_parent_node_id(start) is None)


def forgets_ancestors() -> bool:
    """Whether ComfyUI runs with --cache-none of the versions (0.3) whose cache knows the nodes of the prompt alone."""
    options = host.optional("comfy.cli_args", "args")
    old = host.optional("comfy_execution.caching", "DependencyAwareCache")
    return bool(old and getattr(options, "cache_none", False))


def level(graph, node: str) -> dict:
    """The nodes beside one, by id: the workflow's own, or those that the same node became."""
    parent = graph.get_parent_node_id(node)
    return {i: graph.get_node(i) for i in sorted(graph.all_node_ids()) if graph.get_parent_node_id(i) == parent}


def classes() -> dict:
    """Node id -> class, of all that can run."""
    nodes = host.comfy("nodes")
    return nodes.NODE_CLASS_MAPPINGS if nodes else core.workflow.current().classes


def blocked():
    """An output that keeps the nodes wired to it from running, without an error."""
    execution = host.comfy("comfy_execution.graph")
    return execution.ExecutionBlocker(None) if execution else core.workflow.BLOCKED


def blame_shown(graph) -> None:
    """Errors of a node that another one became are laid at the node they are shown on, where ComfyUI would name the
    one that became it: a user looks for it in the body, not at the loop's end. Holds for this prompt alone."""
    graph.get_real_node_id = graph.get_display_node_id
