"""Workflow files: which format, and from the UI format (version 0.4) to the API format.

The conversion does what the frontend's graphToPrompt does: widget values by position, with the extra slots that it
keeps behind seeds and uploads; muted nodes dropped, bypassed ones wired through, Reroute and PrimitiveNode resolved.
"""

from __future__ import annotations

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
CONTROLS = ("fixed", "increment", "decrement", "randomize")
SEEDS = ("seed", "noise_seed")
NOTES = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def is_ui(source) -> bool:
    """Whether a file's content is a workflow as ComfyUI's editor saves it."""
    return isinstance(source, dict) and isinstance(source.get("nodes"), list)


def is_api(source) -> bool:
    """Whether a file's content is in the API format, {id: {class_type, inputs}}."""
    if not isinstance(source, dict) or not source:
        return False
    return all(
        isinstance(n, dict) and isinstance(n.get("class_type"), str) and isinstance(n.get("inputs"), dict)
        for n in source.values()
    )


def is_link(value) -> bool:
    """Whether an API input is a wire, [node id, output slot]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def inputs_of(kind) -> dict[str, tuple]:
    """Name -> (type, options) of a class's inputs, required first. A list of choices has the type "COMBO"."""
    types = kind.INPUT_TYPES()
    found = {}
    for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
        what, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
        if isinstance(what, (list, tuple)):
            what, options = "COMBO", {**options, "options": list(what)}
        found[name] = (what, options)
    return found


def has_widget(what: str, options: dict) -> bool:
    """Whether the editor shows a widget for an input of that type, rather than a socket alone."""
    return what in WIDGETS and not options.get("forceInput")


def default(what: str, options: dict):
    """What the frontend puts into a fresh widget."""
    if what == "COMBO":
        return options.get("default", options["options"][0] if options.get("options") else "")
    return options.get("default", {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(what, ""))


def slots_after(name: str, what: str, options: dict) -> int:
    """Extra places in widgets_values behind an input: the control of a seed, the button of an upload."""
    control = what in ("INT", "COMBO") and options.get("control_after_generate")
    upload = any(options.get(key) for key in ("image_upload", "video_upload", "audio_upload"))
    return int(bool(control or (what == "INT" and name in SEEDS))) + int(upload)


def widget_values(node: dict, kind) -> dict:
    """Input name -> value of every widget of a UI node. ValueError where a seed's control is not in its place."""
    saved = node.get("widgets_values") or []
    inputs = {name: spec for name, spec in inputs_of(kind).items() if has_widget(*spec)}
    if isinstance(saved, dict):
        return {name: saved.get(name, default(*spec)) for name, spec in inputs.items()}
    found, place = {}, 0
    for name, (what, options) in inputs.items():
        found[name] = saved[place] if place < len(saved) else default(what, options)
        extra = slots_after(name, what, options)
        is_seed = extra and not any(options.get(k) for k in ("image_upload", "video_upload", "audio_upload"))
        if is_seed and place + 1 < len(saved) and saved[place + 1] not in CONTROLS:
            raise ValueError(
                f"node {node['id']} ({node['type']}): widgets_values has {saved[place + 1]!r} behind {name}, "
                f"where {', '.join(CONTROLS)} belongs; its values are shifted. Open and save it in ComfyUI."
            )
        place += 1 + extra
    return found


def listed(source: dict, key: str) -> list:
    """The list under a key; null and nothing are an empty one. ValueError for anything else."""
    found = source.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"the workflow's {key} are no list; save it in ComfyUI again")
    return found


def read_node(node, place: int) -> dict:
    """A UI node with its lists in place. ValueError for what is none; place: where it stands, from 0."""
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        raise ValueError(f"the workflow's node number {place + 1} is none: it has no type; save it in ComfyUI again")
    if type(node.get("id")) not in (int, str):
        raise ValueError(f"the workflow's node number {place + 1} ({node['type']}) has no id; save it in ComfyUI again")
    sockets = {key: listed(node, key) for key in ("inputs", "outputs")}
    if strange := [key for key, entries in sockets.items() if not all(isinstance(e, dict) for e in entries)]:
        raise ValueError(f"node {node['id']} ({node['type']}): its {strange[0]} are none; save the workflow again")
    values = node.get("widgets_values")
    return {**node, **sockets, "widgets_values": values if isinstance(values, (list, dict)) else []}


def read_link(link) -> list:
    """A link as [id, from, slot, to, slot, type]; newer files write objects. ValueError for what is none."""
    if isinstance(link, dict):
        link = [link.get(key) for key in LINK]
    if not isinstance(link, list) or len(link) < 5 or not all(type(v) in (int, str) for v in link[:2]):
        raise ValueError(f"the workflow's link {str(link)[:60]} is none; save it in ComfyUI again")
    if type(link[2]) is not int or link[2] < 0:
        raise ValueError(f"the workflow's link {link[0]} comes from no output; save it in ComfyUI again")
    return link


def subgraph_names(source: dict) -> dict[str, str]:
    """Type of the nodes that stand for a subgraph -> its name."""
    held = source.get("definitions")
    found = held.get("subgraphs") if isinstance(held, dict) else None
    found = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return {str(one.get("id")): str(one.get("name") or one.get("id")) for one in found}


class UIGraph:
    """A UI workflow, indexed: nodes by id, links by id as [id, from, slot, to, slot, type].

    ValueError for subgraphs, and for what is no node or link.
    """

    def __init__(self, source: dict):
        nodes = [read_node(node, place) for place, node in enumerate(source["nodes"]) if node is not None]
        self.nodes = {str(node["id"]): node for node in nodes}
        subgraphs = subgraph_names(source)
        if used := [subgraphs[node["type"]] for node in nodes if node["type"] in subgraphs]:
            raise ValueError(
                f"the workflow holds subgraphs: unpack {used[0]!r}, or export it from ComfyUI (API format)"
            )
        links = (read_link(link) for link in listed(source, "links") if link is not None)
        self.links = {link[0]: link for link in links}

    def origin(self, link_id):
        """What a link brings: ["id", slot], ("value", v) of a PrimitiveNode, or None where nothing arrives.

        ValueError for a circle.
        """
        seen = set()
        while isinstance(link_id, (int, str)) and link_id in self.links:
            if link_id in seen:
                raise ValueError(f"the workflow runs in a circle through link {link_id}")
            seen.add(link_id)
            source, slot = self.links[link_id][1:3]
            node = self.nodes.get(str(source))
            if node is None or node.get("mode", 0) == MUTED:
                return None
            if node["type"] == "PrimitiveNode":
                values = node["widgets_values"]
                return ("value", values[0]) if isinstance(values, list) and values else None
            if node["type"] == "Reroute":
                through = next(iter(node["inputs"]), None)
            elif node.get("mode", 0) == BYPASSED:
                through = bypass(node, slot)
            else:
                return [str(source), slot]
            link_id = through and through.get("link")
        return None


def bypass(node: dict, slot: int) -> dict | None:
    """The input that a bypassed node's output passes on: the same place if its type fits, else the first that does.

    ValueError for an output that is not there.
    """
    inputs, outputs = node["inputs"], node["outputs"]
    if slot >= len(outputs):
        raise ValueError(f"node {node['id']} ({node['type']}) has no output numbered {slot}, which a wire comes from")
    what = outputs[slot].get("type")
    if slot < len(inputs) and inputs[slot].get("type") in (what, "*"):
        return inputs[slot]
    return next((i for i in inputs if i.get("type") == what), None)


def to_api(source: dict, classes: dict) -> dict:
    """A workflow in the API format: {id: {class_type, inputs, _meta}}. An API one is copied."""
    if is_api(source):
        return {i: {**node, "inputs": dict(node["inputs"])} for i, node in source.items()}
    graph, prompt = UIGraph(source), {}
    for name, node in graph.nodes.items():
        kind = classes.get(node["type"])
        if node["type"] in (*NOTES, "Reroute", "PrimitiveNode") or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        inputs = widget_values(node, kind) if kind else {}
        for entry in node["inputs"]:
            brought = graph.origin(entry.get("link"))
            if isinstance(brought, tuple):
                inputs[entry.get("name")] = brought[1]
            elif brought is not None:
                inputs[entry.get("name")] = brought
        meta = {"title": node.get("title") or node["type"]}
        prompt[name] = {"class_type": node["type"], "inputs": inputs, "_meta": meta}
    return prompt
