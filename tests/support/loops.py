"""Loops of small nodes that write down what ran."""

from __future__ import annotations

import helios_video as pack
from helios_video.helios_core.workflow.context import current
from helios_video.nodes import sockets


class Begin:
    """Stands for HistoryMemory: a history, and a number."""

    FUNCTION, RETURN_TYPES = "go", ("HELIOS_HISTORY", "INT")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def go(self):
        Add.made.append("begin")
        return "h", 100


class Add:
    """Adds a letter and, where wired, a number to a history; a clip grows by the same."""

    FUNCTION, RETURN_TYPES = "go", ("HELIOS_HISTORY", "HELIOS_CLIP", "STRING")
    made: list = []

    @classmethod
    def INPUT_TYPES(cls):
        more = {"clip": ("HELIOS_CLIP", {}), "number": ("INT", {"default": -1}), "fails_at": ("INT", {"default": -9})}
        return {"required": {"history": ("HELIOS_HISTORY", {}), "letter": ("STRING", {})}, "optional": more}

    def go(self, history, letter, clip="", number=-1, fails_at=-9):
        word = letter + (str(number) if number >= 0 else "")
        Add.made.append(word)
        if number == fails_at:
            raise ValueError(f"{word} fails")
        return history + word, clip + word, word


class Show:
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "go", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (sockets.ANY, {})}}

    def go(self, value):
        current().texts[current().title] = value
        return ()


CLASSES = {**pack.NODE_CLASS_MAPPINGS, "Begin": Begin, "Add": Add, "Show": Show}


def graph(**changes):
    """Begin -> start -> Add a -> end -> Show. changes: id -> (class, inputs) added, or None taken out."""
    nodes = {
        "1": ("Begin", {}),
        "2": ("HeliosLoopStart", {"chunks": 3, "history": ["1", 0]}),
        "3": ("Add", {"history": ["2", 1], "letter": "a", "number": ["2", 3]}),
        "4": ("HeliosLoopEnd", {"loop": ["2", 0], "history": ["3", 0]}),
        "5": ("Show", {"value": ["4", 0]}),
        **{name.removeprefix("n"): node for name, node in changes.items()},
    }
    return {i: {"class_type": node[0], "inputs": dict(node[1])} for i, node in nodes.items() if node}


def wired(nodes, number, /, **inputs):
    nodes[number]["inputs"].update(inputs)
    return nodes
