"""At home in the real frontend: layouts as it draws them, and a saved video that restores its graph."""

from __future__ import annotations

import base64
import json
from itertools import combinations
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import screenshots
from helios_video.helios_core.join import video
from support.frontend import EXTENSIONS, opened, static_folders

ROOT = Path(pack.__file__).parent
FILES = sorted((ROOT / "workflows").glob("*.json"))
DROP = """async ([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0))
  const transfer = new DataTransfer()
  transfer.items.add(new File([bytes], name, {type}))
  const canvas = document.querySelector('canvas#graph-canvas')
  for (const kind of ['dragenter', 'dragover', 'drop'])
    canvas.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}))
}"""
COUNT = "(count) => (window.app.graph._nodes ?? window.app.graph.nodes).length === count"
TYPES = "() => (window.app.graph._nodes ?? window.app.graph.nodes).map(n => n.type).sort()"


@pytest.fixture(scope="module", params=static_folders() or [None], ids=lambda p: p and p.parent.name)
def page(request):
    with opened(request.param, extensions=EXTENSIONS) as page:
        yield page


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_is_laid_out_as_the_file_says(page, path):
    """The frontend makes no node larger, with our extension too, and nothing overlaps or needs scrolling."""
    source = json.loads(path.read_text(encoding="utf-8"))
    seen = screenshots.show(page, source)
    assert len(seen) == len(source["nodes"]) and not screenshots.faults(source, seen)
    boxes = [(x, y - 30, x + w, y + h) for x, y, w, h in (node["box"] for node in seen)]
    for (a, b, c, d), (e, f, g, h) in combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b


def test_a_saved_video_dropped_on_the_canvas_restores_its_graph(page, tmp_path):
    """As SaveVideo writes it: joined from segments, prompt and workflow in the container's metadata."""
    source = json.loads((ROOT / "workflows" / "text_to_video.json").read_text(encoding="utf-8"))
    twin = json.loads((ROOT / "workflows" / "api" / "text_to_video.json").read_text(encoding="utf-8"))
    part, file = tmp_path / "chunk.mp4", tmp_path / "video.mp4"
    video.write_video(part, np.zeros((3, 64, 64, 3), np.uint8))
    video.remux([part, part], file, metadata={"workflow": source, "prompt": twin})
    page.evaluate("async () => { await window.app.loadGraphData({nodes: [], links: [], version: 0.4}) }")
    page.wait_for_function(COUNT, arg=0)
    page.evaluate(DROP, ["video.mp4", "video/mp4", base64.b64encode(file.read_bytes()).decode()])
    page.wait_for_function(COUNT, arg=len(source["nodes"]), timeout=20_000)
    assert page.evaluate(TYPES) == sorted(node["type"] for node in source["nodes"])
