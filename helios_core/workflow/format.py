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


def is_ui(source) -> bool:
    """Whether a file's content is a workflow as ComfyUI's editor saves it."""
    return isinstance(source, dict) and isinstance(source.get("nodes"), list)


def is_api(source) -> bool:
    """Whether a file's content is in the API format, {id: {class_type, inputs}}."""
    if not isinstance(source, dict) or not source:
        return False
    return all(isinstance(n, dict) and "class_type" in n and isinstance(n.get("inputs"), dict) for n in source.values())


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


class UIGraph:
    """A UI workflow, indexed: nodes by id, links by id as [id, from, slot, to, slot, type].

    ValueError for subgraphs.
    """

    def __init__(self, source: dict):
        if source.get("definitions", {}).get("subgraphs"):
            raise ValueError("the workflow holds subgraphs: unpack them, or export it from ComfyUI in the API format")
        self.nodes = {str(node["id"]): node for node in source["nodes"]}
        self.links = {link[0]: link for link in source.get("links", [])}

    def origin(self, link_id, kinds: dict, seen: tuple = ()):
        """What a link brings: ["id", slot], ("value", v) of a PrimitiveNode, or None where nothing arrives.

        ValueError for a circle.
        """
        if link_id is None or link_id not in self.links:
            return None
        if link_id in seen:
            raise ValueError(f"the workflow runs in a circle through link {link_id}")
        _, source, slot, *_ = self.links[link_id]
        node = self.nodes.get(str(source))
        if node is None or node.get("mode", 0) == MUTED:
            return None
        seen = (*seen, link_id)
        if node["type"] == "Reroute":
            return self.origin(node["inputs"][0].get("link"), kinds, seen)
        if node["type"] == "PrimitiveNode":
            return ("value", node["widgets_values"][0])
        if node.get("mode", 0) == BYPASSED:
            through = bypass(node, slot)
            return through and self.origin(through.get("link"), kinds, seen)
        return [str(source), slot]


def bypass(node: dict, slot: int) -> dict | None:
    """The input that a bypassed node's output passes on: the same place if its type fits, else the first that does."""
    inputs, what = node.get("inputs", []), node["outputs"][slot]["type"]
    if slot < len(inputs) and inputs[slot]["type"] in (what, "*"):
        return inputs[slot]
    return next((i for i in inputs if i["type"] == what), None)


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
        for entry in node.get("inputs", []):
            brought = graph.origin(entry.get("link"), classes)
            if isinstance(brought, tuple):
                inputs[entry["name"]] = brought[1]
            elif brought is not None:
                inputs[entry["name"]] = brought
        meta = {"title": node.get("title") or node["type"]}
        prompt[name] = {"class_type": node["type"], "inputs": inputs, "_meta": meta}
    return prompt
