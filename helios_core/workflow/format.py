"""Workflow files: which format, and what all of them have in common. Classes' inputs and the editor's own format have
modules of their own, `widgets` and `editor`; their names are handed on here."""

from __future__ import annotations

from .editor import NOTES, convert
from .widgets import CONTROLS, default, has_control, has_widget, inputs_of, slots_after, widget_values

__all__ = ["CONTROLS", "NOTES", "default", "has_control", "has_widget", "inputs_of", "is_api", "is_link", "is_ui"]
__all__ += ["slots_after", "to_api", "to_api_and_cut", "widget_values"]


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


def to_api(source: dict, classes: dict) -> dict:
    """A workflow in the API format: {id: {class_type, inputs, _meta}}. An API one is copied."""
    return to_api_and_cut(source, classes)[0]


def to_api_and_cut(source: dict, classes: dict) -> tuple[dict, dict[str, dict[str, str]]]:
    """The same; and why inputs get nothing though something is wired to them, by node and input."""
    if is_api(source):
        prompt, cut = {i: {**node, "inputs": dict(node["inputs"])} for i, node in source.items()}, {}
    else:
        prompt, cut = convert(source, classes)
    for entry in prompt.values():
        names = getattr(classes.get(entry["class_type"]), "ALSO_CALLED", {})
        entry["inputs"] |= {names[n]: entry["inputs"].pop(n) for n in list(entry["inputs"]) if n in names}
    return prompt, cut
