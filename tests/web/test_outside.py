"""The sampler's preview on a one-node workflow: shown once, on the canvas and in Vue nodes, whatever the frontend."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
import pytest
from support.frontend import EXTENSIONS, opened, static_folders

FLOW = Path(pack.__file__).parent / "workflows" / "one_node_text_to_video.json"
PREVIEW = """async id => {
  const canvas = document.createElement("canvas")
  canvas.width = canvas.height = 64
  canvas.getContext("2d").fillRect(0, 0, 64, 64)
  const blob = await new Promise(then => canvas.toBlob(then))
  const { api } = await import("/scripts/api.js")
  const detail = { blob, nodeId: id, displayNodeId: id, realNodeId: id, parentNodeId: null, promptId: "x", jobId: "x" }
  api.dispatchEvent(new CustomEvent("b_preview_with_metadata", { detail }))
}"""
SEEN = """() => {
  const [node] = app.graph._nodes.filter(node => node.subgraph)
  const pictures = [...document.querySelectorAll(".helios-preview")].filter(e => e.offsetParent && e.naturalWidth)
  const own = (node.widgets ?? []).filter(w => w.name === "$$canvas-image-preview").length
  return { ours: pictures.length, own: own && node.imgs ? 1 : 0, height: node.size[1] }
}"""


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])
@pytest.mark.parametrize("static", static_folders(), ids=str)
def test_the_samplers_preview_is_seen_outside_once(static, vue):
    with opened(static, extensions=EXTENSIONS, Comfy_VueNodes_Enabled=vue) as page:
        source = json.loads(FLOW.read_text(encoding="utf-8"))
        page.evaluate("async workflow => { await app.loadGraphData(workflow, true, true, null) }", source)
        page.wait_for_timeout(1000)
        before = page.evaluate(SEEN)
        for _ in range(2):
            page.evaluate(PREVIEW, "1:14")  # the loop's start, which is no sampler
            page.evaluate(PREVIEW, "1:15")
            page.wait_for_timeout(1500)
        seen = page.evaluate(SEEN)
        if vue:  # the frontend's own is no widget there; a person looked at it
            assert seen["ours"] == 0
        else:
            assert before["ours"] + before["own"] == 0 and seen["ours"] + seen["own"] == 1, seen
        if page.evaluate("() => !__COMFYUI_FRONTEND_VERSION__.startsWith('1.27')"):
            assert seen["height"] == before["height"], "there is room for it"
