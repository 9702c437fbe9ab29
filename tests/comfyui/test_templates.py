"""ComfyUI's own templates, half of them with subgraphs: our conversion beside comfy-cli's and the real editor's."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from helios_video.helios_core.workflow import format as fmt
from support import frontend
from support.comfyui import NEEDED, PYTHON
from support.oracle import classes_of, compare, reason

pytestmark = NEEDED
FOLDER = "import comfyui_workflow_templates_json as t; print(t.__path__[0])"
READ = """async (workflow) => {
  try {
    await window.app.loadGraphData(workflow, true, false)
    return (await window.app.graphToPrompt()).output
  } catch (error) { return null }
}"""
# Where the editor puts into a prompt what `helios run` has no need for: it knows none of these classes.
APART = {"SaveGLB", "Preview3D", "ImageCompare", "CustomCombo", "CreateBoundingBoxes", "BuildJsonPromptIdeogram"}


@pytest.fixture(scope="module")
def info(server):
    """What the server's /object_info says."""
    return json.loads(server.get("/object_info"))


@pytest.fixture(scope="module")
def templates():
    """Name -> workflow, of all templates of ComfyUI's Python."""
    found = subprocess.run([PYTHON, "-c", FOLDER], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no comfyui_workflow_templates_json in ComfyUI's Python")
    files = sorted((Path(found.stdout.strip()) / "templates").glob("*.json"))
    sources = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {name: source for name, source in sources.items() if fmt.is_ui(source)}


def with_subgraphs(source) -> bool:
    return bool((source.get("definitions") or {}).get("subgraphs"))


def test_comfy_clis_conversion(templates, info):
    """Every template that both convert is equal, but for what oracle.DECIDED names."""
    classes, counts, open_ends = classes_of(info), Counter(), []
    for name, source in templates.items():
        differences = compare(source, info, classes)
        open_ends += [(name, *d[:4]) for d in differences if reason(d) is None]
        counts["all"] += 1
        counts["with subgraphs"] += with_subgraphs(source)
        counts["equal"] += not differences
        counts["equal, with subgraphs"] += not differences and with_subgraphs(source)
        counts.update({reason(d) for d in differences})
    print(*(f"{count} {what}" for what, count in counts.items()), sep="\n")
    assert not open_ends
    assert counts["with subgraphs"] > 100 and counts["equal, with subgraphs"] > counts["with subgraphs"] // 2


def test_the_editors_own_conversion(templates, info, monkeypatch):
    """The real frontend queues the same of every fifth template, but for nodes that it changes while it loads."""
    if not frontend.static_folders():
        pytest.skip("no comfyui-frontend-package")
    monkeypatch.setitem(frontend.ANSWERS, "/api/object_info", info)
    classes, counts = classes_of(info), Counter()
    some = list(templates.values())[::5]
    with frontend.opened(frontend.static_folders()[0]) as page:
        for source in some:
            queued = page.evaluate(READ, source)
            ours = fmt.to_api(source, classes)
            if queued is None or set(queued) != set(ours):
                counts["refused by the editor's small server, or ids changed while loading"] += 1
                continue
            unlike = {n["class_type"] for i, n in ours.items() if queued[i]["inputs"] != n["inputs"]}
            counts["equal"] += not unlike - APART
            counts.update(unlike - APART)
    print(*(f"{count} {what}" for what, count in counts.most_common()), sep="\n")
    assert counts["equal"] > 0.8 * len(some)
