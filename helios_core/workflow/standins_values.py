"""Stand-ins for ComfyUI's nodes that give or choose a value: numbers, texts, seeds, switches."""

from __future__ import annotations

MOST = 2**63 - 1


def gives(name: str, what: str, options: dict, *, entry: str = "value"):
    """A node class with one widget, whose value it gives."""

    class Gives:
        FUNCTION = "give"
        RETURN_TYPES = (what,)

        @classmethod
        def INPUT_TYPES(cls):
            """The inputs, as ComfyUI asks for them."""
            return {"required": {entry: (what, options)}}

        def give(self, **values):
            """(the value,)."""
            return (values[entry],)

    Gives.__name__ = Gives.__qualname__ = name
    Gives.__doc__ = f"{what}, as a widget of its own."
    return Gives


PrimitiveInt = gives("PrimitiveInt", "INT", {"min": -MOST, "max": MOST, "control_after_generate": True})
PrimitiveFloat = gives("PrimitiveFloat", "FLOAT", {"min": -float(MOST), "max": float(MOST)})
PrimitiveBoolean = gives("PrimitiveBoolean", "BOOLEAN", {})
PrimitiveString = gives("PrimitiveString", "STRING", {"multiline": False})
PrimitiveStringMultiline = gives("PrimitiveStringMultiline", "STRING", {"multiline": True})
SeedNode = gives("SeedNode", "INT", {"min": 0, "max": MOST, "control_after_generate": True}, entry="seed")


class ComfySwitchNode:
    """One of two wires; what leads to the other alone is not run."""

    FUNCTION = "choose"
    RETURN_TYPES = ("*",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        either = ("*", {"lazy": True, "rawLink": True})
        return {"required": {"switch": ("BOOLEAN", {}), "on_false": either, "on_true": either}}

    def choose(self, switch, on_false, on_true):
        """Becomes what is wired to the chosen input."""
        return {"result": (on_true if switch else on_false,), "expand": {}}


class ComfySoftSwitchNode(ComfySwitchNode):
    """One of two wires, or the only one."""

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        needed = super().INPUT_TYPES()["required"]
        return {"required": {"switch": needed.pop("switch")}, "optional": needed}

    def choose(self, switch, on_false=None, on_true=None):
        """Becomes what is wired to the chosen input. ValueError where nothing is wired to either."""
        if on_false is None and on_true is None:
            raise ValueError("wire something to on_false or on_true")
        chosen = on_false if on_true is None or (not switch and on_false is not None) else on_true
        return super().choose(True, None, chosen)


KINDS = (PrimitiveInt, PrimitiveFloat, PrimitiveBoolean, PrimitiveString, PrimitiveStringMultiline, SeedNode)
NODES = {kind.__name__: kind for kind in (*KINDS, ComfySwitchNode, ComfySoftSwitchNode)}
