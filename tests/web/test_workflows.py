"""ComfyUI's real frontend in a real browser, against a small server that knows our nodes: every workflow file must
load there with its values and links intact, and the prompt it would queue must equal the committed API twin. Our own
web extension is absent: the nodes must do without. HELIOS_SCREENSHOTS keeps pictures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow import format as fmt
from support.frontend import CLASSES, opened, static_folders

FOLDER = Path(pack.__file__).parent / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
READ = """async (workflow) => {
  const app = window.app
  await app.loadGraphData(workflow)
  const types = window.LiteGraph.registered_node_types
  const nodes = (app.graph._nodes ?? app.graph.nodes).map(n => ({
    id: String(n.id), type: n.type, known: n.type in types, title: n.title,
    values: (n.widgets ?? []).map(w => [w.name, w.value]),
    inputs: n.inputs.map(i => [i.name, i.link ?? null]),
  }))
  const links = [...app.graph.links.values()].map(l => [
    Number(l.id), Number(l.origin_id), l.origin_slot, Number(l.target_id), l.target_slot])
  return {nodes, links, prompt: (await app.graphToPrompt()).output}
}"""
FIT = """() => {
  const canvas = window.app.canvas
  let [x0, y0, x1, y1] = [1e9, 1e9, -1e9, -1e9]
  for (const g of window.app.graph._groups) {
    x0 = Math.min(x0, g.pos[0]); y0 = Math.min(y0, g.pos[1])
    x1 = Math.max(x1, g.pos[0] + g.size[0]); y1 = Math.max(y1, g.pos[1] + g.size[1])
  }
  const scale = Math.min(1800 / (x1 - x0), 880 / (y1 - y0))
  canvas.ds.scale = scale
  canvas.ds.offset = [-x0 + 80 / scale, -y0 + 90 / scale]
  canvas.setDirty(true, true)
}"""


@pytest.fixture(scope="module", params=static_folders() or [None], ids=lambda p: p and p.parent.name)
def page(request):
    with opened(request.param) as page:
        yield page


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_a_workflow_loads_and_queues_as_its_api_twin(page, path, request):
    source = json.loads(path.read_text(encoding="utf-8"))
    seen = page.evaluate(READ, source)
    if folder := os.environ.get("HELIOS_SCREENSHOTS"):
        page.evaluate(FIT)
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{request.node.callspec.id}.png"))
    nodes = {node["id"]: node for node in seen["nodes"]}
    assert set(nodes) == {str(node["id"]) for node in source["nodes"]}
    assert [n["type"] for n in seen["nodes"] if not n["known"]] == [], "the frontend misses nodes"
    assert sorted(seen["links"]) == sorted(link[:5] for link in source["links"])
    for node in source["nodes"]:
        shown = nodes[str(node["id"])]
        if node["type"] in fmt.NOTES:
            continue
        values = dict(shown["values"])
        if node["type"] not in CLASSES:  # a subgraph: what it shows of its nodes
            assert values == dict(zip(values, node["widgets_values"])) and len(values) == len(node["widgets_values"])
            continue
        for name, value in fmt.widget_values(node, CLASSES[node["type"]]).items():
            assert values[name] == value, f"{node['type']}.{name}"
        assert all(value == "fixed" for name, value in shown["values"] if name == "control_after_generate")
    twin = json.loads((FOLDER / "api" / path.name).read_text(encoding="utf-8"))
    assert strip(seen["prompt"]) == strip(twin)


def strip(prompt: dict) -> dict:
    """A prompt without titles, and without what the frontend keeps for showing a preview."""
    kept = {}
    for number, node in prompt.items():
        known = fmt.inputs_of(CLASSES[node["class_type"]])
        kept[number] = (node["class_type"], {n: v for n, v in node["inputs"].items() if n in known})
    return kept
