"""Pictures of the workflows in ComfyUI's real frontend, for people to look at: `python tests/screenshots.py FOLDER`.

FOLDER/NAME.png for every workflow, or for those whose names follow; prints what would spoil a picture: nodes that the
frontend makes larger than the file says, titles too long for their node, notes that need scrolling. With --docs in
place of FOLDER they go into web/docs, made small, with details for the help pages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import helios_video as pack
from PIL import Image
from support.frontend import ANSWERS, EXTENSIONS, opened, static_folders

FLOWS = Path(pack.__file__).parent / "workflows"
DOCS = Path(pack.__file__).parent / "web" / "docs"
DETAILS = {  # of help pages: the workflow, and which of its groups
    "DMDPyramidSample": ("text_to_video", slice(1, 3)),
    "PyramidDownsample": ("composed_chunk", slice(1, 3)),
    "HeliosPromptSchedule": ("prompt_schedule", slice(0, 2)),
    "HeliosSaveHistory": ("continue_video", slice(2, 5)),
    "HeliosLoopStart": ("long_video", slice(1, 2)),
}
MARGIN, TITLE, LARGEST = 40, 30, 2400  # pixels of the canvas, of a node's title, of a picture's longer side
# What a real ComfyUI says of its own nodes, so far as it shows: their names, and files that are there to choose.
TITLES = {"SaveVideo": "Save Video", "SaveImage": "Save Image", "LoadImage": "Load Image", "LoadVideo": "Load Video"}
TITLES |= {"VAEDecode": "VAE Decode", "GetVideoComponents": "Get Video Components", "PreviewAny": "Preview Any"}
CHOICES = {"LoadImage": ("image", ["example.png"])}
CHOICES |= {"LoadVideo": ("file", ["helios_example.mp4", "helios_control.mp4"])}
FRAME = """([x, y, scale]) => {
  const canvas = window.app.canvas
  canvas.ds.scale = scale
  canvas.ds.offset = [-x, -y]
  canvas.setDirty(true, true)
}"""
SEEN = """() => {
  const pen = document.createElement('canvas').getContext('2d')
  pen.font = '14px Arial'
  return (app.graph._nodes ?? app.graph.nodes).map(n => ({
    id: Number(n.id), type: n.type, title: n.title, titleWidth: pen.measureText(n.title).width + 40,
    box: [n.pos[0], n.pos[1], n.size[0], n.size[1]], least: Array.from(n.computeSize()),
    scrolls: (n.widgets ?? []).some(w => w.element && w.element.scrollHeight > w.element.clientHeight + 4),
  }))
}"""
HIDE = "body * { visibility: hidden } #graph-canvas, .dom-widget, .dom-widget * { visibility: visible }"
SETTINGS = {"Comfy_Minimap_Visible": False, "Comfy_Graph_CanvasInfo": False}


def frame(boxes) -> tuple[float, float, float, float]:
    """Left, top, width and height around groups [x y w h], with a margin."""
    left, top = min(b[0] for b in boxes) - MARGIN, min(b[1] for b in boxes) - MARGIN
    right, bottom = max(b[0] + b[2] for b in boxes) + MARGIN, max(b[1] + b[3] for b in boxes) + MARGIN
    return left, top, right - left, bottom - top


def show(page, source: dict, part=slice(None)) -> list[dict]:
    """Loads a workflow and fills the window with a part of its groups; its nodes as the frontend lays them out."""
    left, top, width, height = frame([group["bounding"] for group in source["groups"][part]])
    scale = min(1.0, LARGEST / max(width, height))
    page.set_viewport_size({"width": round(width * scale), "height": round(height * scale)})
    page.evaluate("async (workflow) => { await window.app.loadGraphData(workflow) }", source)
    page.wait_for_timeout(700)
    page.evaluate(FRAME, [left, top, scale])
    page.wait_for_timeout(1200)
    return page.evaluate(SEEN)


def faults(source: dict, seen: list[dict]) -> list[str]:
    """What would spoil the picture, in words."""
    saved = {node["id"]: node["size"] for node in source["nodes"]}
    found = []
    for node in seen:
        name, (width, height) = f"{node['id']} {node['type']}", saved[node["id"]]
        if node["box"][2] > width + 1 or node["box"][3] > height + 1:
            found.append(f"{name}: {width}x{height} in the file, {node['box'][2:]} in the frontend")
        if node["titleWidth"] > node["box"][2]:
            found.append(
                f"{name}: the title {node['title']!r} needs {node['titleWidth']:.0f}, has {node['box'][2]:.0f}"
            )
        if node["scrolls"]:
            found.append(f"{name}: its text needs scrolling")
    return found


def look_real() -> None:
    known = ANSWERS["/api/object_info"]
    for name, title in TITLES.items():
        known[name]["display_name"] = title
    for name, (field, files) in CHOICES.items():
        kind, options = known[name]["input"]["required"][field]
        known[name]["input"]["required"][field] = (kind, {**options, "options": files})


def small(path: Path, width: int) -> None:
    """A PNG as WebP for the help pages and the README."""
    with Image.open(path) as picture:
        size = (width, round(picture.height * width / picture.width))
        picture.convert("RGB").resize(size, Image.LANCZOS).save(DOCS / f"{path.stem}.webp", quality=70, method=6)


def main(folder: Path, names: list[str], docs: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    look_real()
    wanted = {name: (name, slice(None)) for name in (path.stem for path in sorted(FLOWS.glob("*.json")))}
    wanted |= DETAILS if docs else {}
    with opened(static_folders()[0], extensions=EXTENSIONS, **SETTINGS) as page:
        page.add_style_tag(content=HIDE)
        for name in names or wanted:
            flow, part = wanted[name]
            source = json.loads((FLOWS / f"{flow}.json").read_text(encoding="utf-8"))
            print(name, *faults(source, show(page, source, part)), sep="\n  ")
            page.screenshot(path=str(folder / f"{name}.png"))
            if docs:
                small(folder / f"{name}.png", 700 if name in DETAILS else 1400)


if __name__ == "__main__":
    docs = sys.argv[1] == "--docs"
    main(Path(tempfile.mkdtemp() if docs else sys.argv[1]), sys.argv[2:], docs)
