"""A workflow of small nodes that add numbers and show the sum."""

from __future__ import annotations

from helios_video.helios_core.workflow.context import current


class Number:
    FUNCTION, RETURN_TYPES = "make", ("NUMBER", "STRING")
    made: list = []

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "text": ("STRING", {"default": "none"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 9}),
                "scale": ("FLOAT", {"default": 1.0}),
                "mode": (["plain", "double"], {"default": "plain"}),
                "minus": ("BOOLEAN", {"default": False}),
            }
        }

    def make(self, text, seed, scale, mode, minus):
        Number.made.append(seed)
        value = seed * scale * (2 if mode == "double" else 1) * (-1 if minus else 1)
        return value, text


class Add:
    FUNCTION, RETURN_TYPES = "add", ("NUMBER",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("NUMBER", {}), "b": ("NUMBER,IMAGE", {})}, "optional": {"c": ("NUMBER", {})}}

    def add(self, a, b, c=0):
        current().report(1, 2)
        return {"ui": {}, "result": (a + b + c,)}


class Show:
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "show", (), True
    shown: list = []

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"value": ("*", {})},
            "hidden": {"prompt": "PROMPT", "extra": "EXTRA_PNGINFO", "me": "UNIQUE_ID"},
        }

    def show(self, value, prompt, extra, me):
        Show.shown.append((value, me, sorted(prompt), "workflow" in extra))
        return ()


CLASSES = {"Number": Number, "Add": Add, "Show": Show}


def node(number, kind, inputs, outputs, widgets=None, **more):
    return {"id": number, "type": kind, "inputs": inputs, "outputs": outputs, "widgets_values": widgets, **more}


def ui():
    """Number -> Reroute -> Add <- PrimitiveNode-seeded Number; a bypassed Add in the way; a muted Show; a note."""
    out = [{"name": "n", "type": "NUMBER", "links": []}, {"name": "s", "type": "STRING", "links": []}]
    seed = [{"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": 8}]
    nodes = [
        node(1, "Number", [], out, ["x", 3, "randomize", 2.0], title="First"),
        node(2, "Number", seed, out, ["y", 1, "fixed", 1.0, "double", True, "surplus"], mode=0),
        node(3, "Reroute", [{"name": "", "type": "*", "link": 1}], [{"name": "", "type": "NUMBER", "links": [2]}]),
        node(
            4,
            "Add",
            [{"name": n, "type": t, "link": link} for n, t, link in (("a", "NUMBER", 2), ("b", "NUMBER,IMAGE", 3))],
            [{"name": "sum", "type": "NUMBER", "links": [4]}],
        ),
        node(
            5,
            "Add",
            [{"name": n, "type": "NUMBER", "link": link} for n, link in (("a", 4), ("b", 6))],
            [{"name": "sum", "type": "NUMBER", "links": [5]}],
            mode=4,
        ),
        node(6, "Show", [{"name": "value", "type": "*", "link": 5}], []),
        node(7, "Show", [{"name": "value", "type": "*", "link": 7}], [], mode=2),
        node(8, "PrimitiveNode", [], [{"name": "INT", "type": "INT", "links": [8]}], [4, "fixed"]),
        node(9, "MarkdownNote", [], [], ["words"]),
    ]
    links = [[1, 1, 0, 3, 0, "*"], [2, 3, 0, 4, 0, "*"], [3, 2, 0, 4, 1, "*"], [4, 4, 0, 5, 0, "*"]]
    links += [[5, 5, 0, 6, 0, "*"], [6, 1, 0, 5, 1, "*"], [7, 1, 0, 7, 0, "*"], [8, 8, 0, 2, 0, "INT"]]
    return {"nodes": nodes, "links": links, "version": 0.4}
