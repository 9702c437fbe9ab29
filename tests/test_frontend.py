"""ComfyUI's real frontend in a real browser, against a small server that knows our nodes: every workflow file must
load there with its values and links intact, and the prompt it would queue must equal the committed API twin.

Needs a Chromium (/usr/bin/chromium, or HELIOS_CHROMIUM), playwright and comfyui-frontend-package. Further versions of
the frontend: HELIOS_FRONTENDS, folders that hold index.html, separated as in PATH. HELIOS_SCREENSHOTS keeps pictures.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core import workflow_format as fmt
from helios_video.helios_core.standins import NODES as CORE

FOLDER = Path(pack.__file__).parent / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
CLASSES = {**CORE, **pack.NODE_CLASS_MAPPINGS}
CHROMIUM = os.environ.get("HELIOS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
pytestmark = pytest.mark.slow
READY = "() => window.app && window.app.graph && document.querySelector('canvas#graph-canvas')"
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


def static_folders() -> list[Path]:
    folders = [Path(p) for p in os.environ.get("HELIOS_FRONTENDS", "").split(os.pathsep) if p]
    try:
        import comfyui_frontend_package
    except ImportError:
        return folders
    return [Path(comfyui_frontend_package.__file__).parent / "static", *folders]


def node_info(name: str, kind) -> dict:
    """What /object_info says of a V1 class."""
    types = kind.INPUT_TYPES()
    outputs = list(kind.RETURN_TYPES)
    return {
        "input": types,
        "input_order": {part: list(inputs) for part, inputs in types.items()},
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": list(getattr(kind, "RETURN_NAMES", outputs)),
        "output_tooltips": list(getattr(kind, "OUTPUT_TOOLTIPS", ())),
        "name": name,
        "display_name": pack.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(kind, "DESCRIPTION", ""),
        "python_module": "custom_nodes.helios-video" if name in pack.NODE_CLASS_MAPPINGS else "nodes",
        "category": getattr(kind, "CATEGORY", "core"),
        "output_node": getattr(kind, "OUTPUT_NODE", False),
    }


ANSWERS = {
    "/api/users": {"storage": "server", "migrated": True},
    "/api/settings": {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False},
    "/api/extensions": [],
    "/api/object_info": {name: node_info(name, kind) for name, kind in CLASSES.items()},
    "/api/i18n": {},
    "/api/features": {},
    "/api/global_subgraphs": {},
    "/api/queue": {"queue_running": [], "queue_pending": []},
    "/api/history": {},
    "/api/userdata": [],
    "/api/experiment/models": [],
}


class Stub(SimpleHTTPRequestHandler):
    """The frontend's files, and the few answers it needs to start."""

    def do_GET(self):
        answer = ANSWERS.get(self.path.partition("?")[0])
        if answer is None:
            super().do_GET()
            return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module", params=static_folders() or [None], ids=lambda p: p and p.parent.name)
def page(request):
    if request.param is None:
        pytest.skip("no frontend: comfyui-frontend-package is not installed and HELIOS_FRONTENDS is not set")
    if CHROMIUM is None:
        pytest.skip("no chromium: install Debian's chromium, or name one in HELIOS_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Stub, directory=str(request.param)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1920, "height": 1080})
            page.goto(f"http://127.0.0.1:{server.server_port}/", wait_until="domcontentloaded")
            page.wait_for_function(READY, timeout=90_000)
            page.wait_for_timeout(4000)  # extensions register after the graph is there
            yield page
            browser.close()
    finally:
        server.shutdown()


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
