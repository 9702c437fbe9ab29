"""Values in a workflow: overrides by name, conversion to an input's type, and checks before anything runs."""

from __future__ import annotations

import difflib
import math

from ..disk import plain
from . import format as fmt

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def title(entry: dict) -> str:
    """What the user calls a node; its class where it has no title."""
    meta = entry.get("_meta")
    named = meta.get("title") if isinstance(meta, dict) else None
    return named if isinstance(named, str) and named else entry["class_type"]


def label(node: str, prompt: dict) -> str:
    """A node as messages name it, such as "node 3 (Chunk 1, DMDPyramidSample)"."""
    entry = prompt[node]
    names = dict.fromkeys((title(entry), entry["class_type"]))
    return f"node {node} ({', '.join(names)})"


def near(name: str, names) -> str:
    """A hint such as " (did you mean 'seed'?)", or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def override(prompt: dict, classes: dict, overrides: dict) -> None:
    """Sets inputs in place. Keys are "NODE.INPUT": NODE is an id, or the title or type of one or more nodes.

    A wire at that input is replaced. ValueError names what there is.
    """
    for key, value in overrides.items():
        target, dot, name = key.rpartition(".")
        if not dot or not target or not name:
            raise ValueError(f"--set {key}: wanted NODE.INPUT=VALUE, such as T5Encode.text='a red ball'")
        for node in find(prompt, target, key):
            kind = classes.get(prompt[node]["class_type"])
            inputs = fmt.inputs_of(kind) if kind else {}
            if name not in inputs:
                raise ValueError(
                    f"--set {key}: {label(node, prompt)} has no input {name!r}{near(name, inputs)}; it has "
                    + ", ".join(n for n, spec in inputs.items() if fmt.has_widget(*spec))
                )
            if not fmt.has_widget(*inputs[name]):
                raise ValueError(f"--set {key}: {name!r} takes a wire of type {inputs[name][0]}, not a value")
            ranged = name not in own_checks(kind)
            prompt[node]["inputs"][name] = convert(value, *inputs[name], where=f"--set {key}", ranged=ranged)


def find(prompt: dict, target: str, key: str) -> list[str]:
    """Nodes by id, else all of that title or type. ValueError names what there is."""
    if target in prompt:
        return [target]
    if found := [i for i, n in prompt.items() if target in (title(n), n["class_type"])]:
        return found
    known = dict.fromkeys(name for n in prompt.values() for name in (title(n), n["class_type"]))
    raise ValueError(f"--set {key}: no node {target!r}{near(target, known)}; there are {', '.join(known)}")


def own_checks(kind) -> set[str]:
    """The inputs whose range a class checks itself: as in ComfyUI, what its VALIDATE_INPUTS takes by name."""
    verify = getattr(kind, "VALIDATE_INPUTS", None)
    return set(verify.__code__.co_varnames[: verify.__code__.co_argcount]) if verify else set()


def convert(value, what: str, options: dict, *, where: str, ranged: bool = True):
    """`value`, possibly text, as the type of an input, within its range. ValueError says what was wanted.

    ranged: whether min and max of the input hold.
    """
    if what == "COMBO":
        return _choice(value, options.get("options"), where)
    try:
        value = {"INT": _integer, "FLOAT": _number, "BOOLEAN": _boolean, "STRING": _text}[what](value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"{where}: wanted {what}, got {said(value)}") from None
    for bound, outside in (("min", lambda v, b: v < b), ("max", lambda v, b: v > b)):
        if ranged and bound in options and outside(value, options[bound]):
            raise ValueError(f"{where}: {plain(str(value))} is out of range, {bound} is {options[bound]}")
    return value


def _choice(value, choices, where: str):
    if choices is None:
        if isinstance(value, str) and value:
            return value
        raise ValueError(f"{where}: wanted the name of a file, got {said(value)}")
    if value in choices:
        return value
    same = [c for c in choices if str(c) == str(value)]
    if not same:
        names = [str(c) for c in choices]
        raise ValueError(f"{where}: {said(value)} is not one of {', '.join(names)}{near(str(value)[:99], names)}")
    return same[0]


def said(value) -> str:
    """A value in a message."""
    text = "null, which is nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:70]} ..."


def _text(value) -> str:
    """Of a text or a number; null is no text, nor is a list."""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError


def _number(value) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _integer(value) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _boolean(value) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in TRUE + FALSE:
        raise ValueError
    return text in TRUE


def check(prompt: dict, classes: dict, order: list[str], cut: dict | None = None) -> None:
    """Converts and checks every value and wire of the nodes to be run, in place. ValueError names node and input.

    cut: node -> input -> why nothing comes though something is wired to it.
    """
    for node in order:
        entry = prompt[node]
        kind = classes[entry["class_type"]]
        inputs = fmt.inputs_of(kind)
        missing = [n for n in kind.INPUT_TYPES().get("required", {}) if n not in entry["inputs"]]
        if missing:
            why = [f"; {name}: {said}" for name, said in (cut or {}).get(node, {}).items() if name in missing]
            raise ValueError(
                f"{label(node, prompt)} needs {', '.join(missing)}: wire it up, or give it a value{''.join(why)}"
            )
        own = own_checks(kind)
        for name, value in list(entry["inputs"].items()):
            where = f"{label(node, prompt)}.{name}"
            if name not in inputs:
                del entry["inputs"][name]  # of another version of the node; ComfyUI takes no notice either
                _check_later(value, getattr(kind, "LATER", {}).get(name), where)
            elif fmt.is_link(value):
                _check_link(value, inputs[name][0], prompt, classes, where)
            elif fmt.has_widget(*inputs[name]):
                entry["inputs"][name] = convert(value, *inputs[name], where=where, ranged=name not in own)
            elif inputs[name][0] != "*":
                raise ValueError(f"{where}: wanted a wire of type {inputs[name][0]}, got the value {said(value)}")
        if verify := getattr(kind, "VALIDATE_INPUTS", None):
            _verify(verify, entry["inputs"], label(node, prompt))


def _check_later(value, known: tuple | None, where: str) -> None:
    """ValueError for a value of a newer version's input that does not run here."""
    if known is not None and not fmt.is_link(value) and value not in known:
        raise ValueError(
            f"{where}: {said(value)} is nothing that `helios run` can do, {' or '.join(map(str, known))} is; "
            "choose that, or run it in ComfyUI"
        )


def _check_link(link: list, wanted: str, prompt: dict, classes: dict, where: str) -> None:
    returns = classes[prompt[link[0]]["class_type"]].RETURN_TYPES
    if not 0 <= link[1] < len(returns):
        raise ValueError(f"{where}: {label(link[0], prompt)} has {len(returns)} outputs, none numbered {link[1]}")
    given = returns[link[1]]
    if not fits(given, wanted):
        raise ValueError(f"{where}: wanted {wanted}, {label(link[0], prompt)} gives {given}")


def fits(given: str, wanted: str) -> bool:
    """Whether a wire of one type may go into an input of another; either may be a union, or "*" for any."""
    wanted_types, given_types = set(wanted.split(",")), set(given.split(","))
    return "*" in wanted_types | given_types or bool(wanted_types & given_types)


def _verify(verify, inputs: dict, where: str) -> None:
    names = own_checks(verify.__self__)
    answer = verify(**{n: v for n, v in inputs.items() if n in names and not fmt.is_link(v)})
    if answer is not True:
        raise ValueError(f"{where}: {answer}")
