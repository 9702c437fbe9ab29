"""What ComfyUI shows of the nodes, as in its translation files. `python tests/translations.py` writes the English ones.

ComfyUI reads them from the folder locales beside __init__.py and from nowhere else: nodeDefs.json (by node id; inputs
by name, outputs by place) and main.json (what is not of one node). The other languages are written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
from helios_video.helios_core.workflow.format import inputs_of

FOLDER = Path(pack.__file__).parent / "locales"
LANGUAGES = ("en", "zh", "ja")
SOCKETS = {  # our own kinds of wires
    "HELIOS_HISTORY": "Helios history",
    "HELIOS_CLIP": "Helios clip",
    "HELIOS_LEVELS": "Helios levels",
    "HELIOS_LOOP": "Helios loop",
    "UL_DECODER": "UL decoder",
}


def node_texts() -> dict:
    """nodeDefs.json in English, from the node classes."""
    return {name: _texts(name, kind) for name, kind in pack.NODE_CLASS_MAPPINGS.items()}


def _texts(name: str, kind) -> dict:
    inputs = {field: {"name": field, "tooltip": options["tooltip"]} for field, (_, options) in inputs_of(kind).items()}
    outputs = zip(kind.RETURN_NAMES, kind.OUTPUT_TOOLTIPS, strict=True)
    return {
        "display_name": pack.NODE_DISPLAY_NAME_MAPPINGS[name],
        "description": kind.DESCRIPTION,
        "inputs": inputs,
        "outputs": {str(place): {"name": n, "tooltip": tip} for place, (n, tip) in enumerate(outputs)},
    }


def main_texts() -> dict:
    """main.json in English: the menu's category, and our kinds of wires."""
    return {"nodeCategories": {"Helios": "Helios"}, "dataTypes": SOCKETS}


def read(language: str, name: str) -> dict:
    return json.loads((FOLDER / language / f"{name}.json").read_text(encoding="utf-8"))


def leaves(texts: dict, path: str = "") -> dict[str, str]:
    """A path of keys -> text."""
    found = {}
    for key, value in texts.items():
        here = f"{path}.{key}" if path else key
        found.update(leaves(value, here) if isinstance(value, dict) else {here: value})
    return found


if __name__ == "__main__":
    for name, texts in (("nodeDefs", node_texts()), ("main", main_texts())):
        path = FOLDER / "en" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
