"""A node class's inputs, and which of them have a widget: how the editor's positional widgets_values are read."""

from __future__ import annotations

from collections.abc import Iterator

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
CHOICE_WITH_INPUTS = "COMFY_DYNAMICCOMBO_V3"  # each choice brings inputs of its own, named "choice.input"
CONTROLS = ("fixed", "increment", "decrement", "randomize")
SEEDS = ("seed", "noise_seed")
UPLOADS = ("image_upload", "video_upload", "audio_upload")


def inputs_of(kind) -> dict[str, tuple]:
    """Name -> (type, options) of a class's inputs, required first. A list of choices has the type "COMBO"."""
    return _specs(kind.INPUT_TYPES())


def _specs(types: dict) -> dict[str, tuple]:
    found = {}
    for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
        what, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
        if isinstance(what, (list, tuple)):
            what, options = "COMBO", {**options, "options": list(what)}
        found[name] = (what, options)
    return found


def has_widget(what: str, options: dict) -> bool:
    """Whether the editor shows a widget for an input of that type, rather than a socket alone."""
    if options.get("forceInput") or options.get("defaultInput"):
        return False
    drawn = options.get("widgetType") or options.get("socketless")
    return bool(drawn) or what in WIDGETS or what == CHOICE_WITH_INPUTS


def default(what: str, options: dict):
    """What the frontend puts into a fresh widget."""
    choices = options.get("options") or [""]
    if what == CHOICE_WITH_INPUTS:
        return choices[0].get("key", "")
    if what == "COMBO":
        return options.get("default", choices[0])
    return options.get("default", {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False, "STRING": ""}.get(what))


def has_control(name: str, what: str, options: dict) -> bool:
    """Whether the editor puts a control behind a widget: what becomes of a seed after a run."""
    asked = options.get("control_after_generate")
    if asked is None:
        return what == "INT" and name in SEEDS
    return bool(asked) and what in ("INT", "COMBO")


def slots_after(name: str, what: str, options: dict) -> int:
    """Extra places in widgets_values that come with an input: the control of a seed, the button of an upload."""
    return int(has_control(name, what, options)) + int(any(options.get(key) for key in UPLOADS))


def widget_values(node: dict, kind) -> dict:
    """Input name -> value of every widget of a UI node, those of a chosen option's own inputs too.

    A file may lack the control behind a seed, as those that people wrote by hand do: then what stands there is no
    word for one, and belongs to the next widget. Values missing at the end are the defaults.
    """
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        inputs = {name: spec for name, spec in inputs_of(kind).items() if has_widget(*spec)}
        return {**{name: default(*spec) for name, spec in inputs.items()}, **_known(saved, kind)}
    found: dict = {}
    place, todo = 0, [*_in_order(kind)]
    while todo:
        name, what, options = todo.pop(0)
        if name is None:  # the button of an upload
            place += 1
            continue
        found[name] = saved[place] if place < len(saved) else default(what, options)
        place += 1
        if what == CHOICE_WITH_INPUTS:
            todo = [*_inputs_of_choice(name, options, found[name]), *todo]
        elif place < len(saved) and _is_control(saved[place], (name, what, options), todo):
            place += 1
    later = zip(getattr(kind, "LATER", {}), saved[place:], strict=False)
    return {**found, **dict(later)}


def _is_control(word, before: tuple, behind: list[tuple]) -> bool:
    """Whether a saved value is the control of the widget before it, and not the value of the one behind it."""
    if not isinstance(word, str) or word not in CONTROLS:
        return False
    if has_control(*before):
        return True
    name, what, _ = before  # older tools wrote one behind all seeds; it counts where nothing else can be meant
    if what != "INT" or "seed" not in name.lower():
        return False
    _, what, options = behind[0] if behind else ("", "INT", {})
    return what in ("INT", "FLOAT", "BOOLEAN") or (what == "COMBO" and word not in options.get("options", ()))


def _known(saved: dict, kind) -> dict:
    """What a node saves by name, without what its class does not have, such as previews."""
    names = {*inputs_of(kind), *getattr(kind, "LATER", {})}
    return {name: value for name, value in saved.items() if name in names or name.partition(".")[0] in names}


def _in_order(kind) -> Iterator[tuple]:
    """(name, type, options) of each widget; name None for the button of an upload, last of what is required."""
    types = kind.INPUT_TYPES()
    for section in ("required", "optional"):
        specs = _specs({section: types.get(section, {})})
        yield from ((name, *spec) for name, spec in specs.items() if has_widget(*spec))
        if any(options.get(key) for _, options in specs.values() for key in UPLOADS):
            yield None, "", {}


def _inputs_of_choice(name: str, options: dict, chosen) -> list[tuple]:
    """The widgets that one choice brings."""
    types = next((o.get("inputs", {}) for o in options.get("options", ()) if o.get("key") == chosen), {})
    return [(f"{name}.{inner}", *spec) for inner, spec in _specs(types).items() if has_widget(*spec)]
