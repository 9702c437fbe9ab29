"""comfy-cli's conversion to the API format beside ours: the same, but for what is decided otherwise, in DECIDED."""

from __future__ import annotations

import json
from typing import NamedTuple

from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.levels import open_levels

NOTHING = "nothing"


class Difference(NamedTuple):
    """One input of one node: what comfy-cli says, what ours says; the node as it was saved, and its class."""

    node: str
    name: str
    theirs: object
    ours: object
    saved: dict
    kind: type | None

    @property
    def spec(self) -> tuple:
        found = fmt.inputs_of(self.kind) if self.kind else {}
        return found.get(self.name, ("", {}))

    @property
    def of_choice(self) -> bool:
        """Whether it is a choice that brings inputs of its own, or one of these."""
        found = fmt.inputs_of(self.kind) if self.kind else {}
        return found.get(self.name.partition(".")[0], ("",))[0] == "COMFY_DYNAMICCOMBO_V3"


def _is_wire(value) -> bool:
    return isinstance(value, list)


# What is decided otherwise, the first that holds. Where no reason is given, ours is what ComfyUI's own editor queues.
DECIDED = {
    "a class that is not known: comfy-cli guesses names for its values; `helios run` refuses the node": lambda d: (
        d.kind is None
    ),
    "3D viewers, which `helios run` does not know": lambda d: d.saved.get("type", "").startswith("Load3D"),
    "objects among a node's values: comfy-cli takes words inside them for names": lambda d: any(
        isinstance(v, dict) for v in d.saved.get("widgets_values") or ()
    ),
    "a choice with inputs of its own that the file lacks: its default, where comfy-cli gives nothing": lambda d: (
        d.theirs is NOTHING and d.of_choice
    ),
    "{a|b} in a prompt: as written, so that runs repeat; comfy-cli and the editor draw one": lambda d: (
        bool(d.spec[1].get("dynamicPrompts")) and isinstance(d.theirs, str)
    ),
    "a bypassed node none of whose inputs fits, a muted Reroute: nothing, where comfy-cli wires on": lambda d: (
        d.ours is NOTHING and _is_wire(d.theirs)
    ),
    "a socket that is not wired: nothing, where comfy-cli gives a default": lambda d: (
        d.ours is NOTHING and not fmt.has_widget(*d.spec)
    ),
    "a socket that shares a subgraph's input with a widget: its value, where comfy-cli gives nothing": lambda d: (
        d.theirs is NOTHING and not _is_wire(d.ours) and not fmt.has_widget(*d.spec)
    ),
    "a widget wired to a muted node: its own value, where comfy-cli gives nothing": lambda d: (
        (d.theirs is NOTHING or _is_wire(d.theirs)) and fmt.has_widget(*d.spec)
    ),
    "a choice in other letters: as written, and refused with the near one named": lambda d: (
        isinstance(d.ours, str) and isinstance(d.theirs, str) and d.ours.lower() == d.theirs.lower()
    ),
    "a PrimitiveNode's value, where comfy-cli keeps what was saved in the node that it is wired to": lambda d: (
        fmt.has_widget(*d.spec)
        and any(i.get("name") == d.name and i.get("link") is not None for i in d.saved.get("inputs") or ())
    ),
}


def theirs(source: dict, info: dict) -> dict:
    """comfy-cli's conversion. info: what /object_info says."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    return convert_ui_to_api(json.loads(json.dumps(source)), info)


def compare(source: dict, info: dict, classes: dict) -> list[Difference]:
    """All inputs in which the two differ; a node that only one has counts with the name ""."""
    wanted, found = theirs(source, info), fmt.to_api(source, classes)
    saved = {level.prefix + str(node["id"]): node for level, node in open_levels(source)}
    differences = []
    for node in [*wanted, *(n for n in found if n not in wanted)]:
        kind = classes.get((wanted.get(node) or found[node])["class_type"])
        if node not in wanted or node not in found:
            differences.append(Difference(node, "", node in wanted, node in found, saved.get(node, {}), kind))
            continue
        one, other = wanted[node]["inputs"], found[node]["inputs"]
        for name in [*one, *(n for n in other if n not in one)]:
            pair = one.get(name, NOTHING), other.get(name, NOTHING)
            if pair[0] != pair[1]:
                differences.append(Difference(node, name, *pair, saved.get(node, {}), kind))
    return differences


def reason(difference: Difference) -> str | None:
    """Which decision a difference falls under; None for none."""
    if not difference.name:
        return None
    return next((text for text, holds in DECIDED.items() if holds(difference)), None)


def classes_of(info: dict) -> dict:
    """Node classes, as far as a conversion asks, of what /object_info says."""

    def kind(told: dict) -> type:
        order = told.get("input_order") or {}
        parts = {part: told["input"].get(part) or {} for part in ("required", "optional")}
        types = {
            part: {n: given[n] for n in [*(n for n in order.get(part, ()) if n in given), *given]}
            for part, given in parts.items()
        }
        return type("Told", (), {"INPUT_TYPES": classmethod(lambda cls: types)})

    return {name: kind(told) for name, told in info.items()}
