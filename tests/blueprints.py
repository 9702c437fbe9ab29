"""The subgraph blueprints that ComfyUI offers among its nodes, out of the workflows that are one node: `python
tests/blueprints.py` writes them anew. The folder's name, subgraphs/ beside nodes/, is ComfyUI's own choice."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack

ROOT = Path(pack.__file__).parent
WORKFLOWS = ("one_node_text_to_video", "one_node_image_to_video")


def alone(flow: dict) -> tuple[str, str]:
    """(File name, text) of the blueprint: the workflow's one subgraph node, wired to nothing."""
    (held,) = flow["definitions"]["subgraphs"]
    (node,) = (node for node in flow["nodes"] if node["type"] == held["id"])
    ends = {
        "inputs": [{**entry, "link": None} for entry in node["inputs"]],
        "outputs": [{**entry, "links": []} for entry in node["outputs"]],
    }
    kept = {key: flow[key] for key in ("id", "revision", "last_node_id", "last_link_id", "definitions", "version")}
    blueprint = {**kept, "nodes": [{**node, **ends, "pos": [0, 0], "order": 0}], "links": [], "groups": []}
    name = held["name"].replace(":", "")  # which Windows allows in no file's name
    whole = {**blueprint, "config": {}, "extra": held["extra"]}  # where the description is read from
    return f"{name}.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def blueprints() -> dict[str, str]:
    """All of them, text by file name."""
    return dict(alone(json.loads((ROOT / "workflows" / f"{w}.json").read_text(encoding="utf-8"))) for w in WORKFLOWS)


if __name__ == "__main__":
    for name, text in blueprints().items():
        (ROOT / "subgraphs" / name).write_text(text, encoding="utf-8")
