"""ComfyUI's real frontend queues of workflows with subgraphs what our conversion makes of them."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow import format as fmt
from support import frontend
from support.nested import flat, nested
from support.sums import CLASSES as SUMS
from support.sums import ui

CLASSES = {**frontend.CLASSES, **SUMS}
READ = """async (workflow) => {
  await window.app.loadGraphData(workflow, true, false)
  return (await window.app.graphToPrompt()).output
}"""


@pytest.fixture(scope="module")
def page():
    if not frontend.static_folders():
        pytest.skip("no comfyui-frontend-package")
    info = {name: frontend.node_info(name, kind) for name, kind in CLASSES.items()}
    known = frontend.ANSWERS["/api/object_info"]
    frontend.ANSWERS["/api/object_info"] = info
    try:
        with frontend.opened(frontend.static_folders()[0]) as page:
            yield page
    finally:
        frontend.ANSWERS["/api/object_info"] = known


def placed(nodes):
    """Nodes with what the frontend wants to draw them by."""
    return [
        {"pos": [50 * i, 50], "size": [200, 100], "flags": {}, "order": i, "mode": 0, "properties": {}, **node}
        for i, node in enumerate(nodes)
    ]


def drawn(source):
    """A workflow as the frontend would have saved it."""
    source = json.loads(json.dumps(source))
    held = source.get("definitions", {}).get("subgraphs", [])
    for level in (source, *held):
        level["nodes"] = placed(level["nodes"])
    ends = {"inputNode": {"id": -10, "bounding": [0, 0, 9, 9]}, "outputNode": {"id": -20, "bounding": [0, 0, 9, 9]}}
    state = {"lastNodeId": 99, "lastLinkId": 99, "lastGroupId": 0, "lastRerouteId": 0}
    for level in held:
        level.update(version=1, revision=0, state=state, groups=[], widgets=[], config={}, extra={}, **ends)
    return {"last_node_id": 99, "last_link_id": 99, "groups": [], "config": {}, "extra": {}, "version": 0.4, **source}


@pytest.mark.parametrize(
    "source",
    [
        *(ui(), flat(), flat([3]), flat([3, "words"]), flat([3], seeded=True), flat([3], mode=2), flat([3], mode=4)),
        *(nested(), nested([4]), nested([4], inner=[9])),
    ],
)
def test_the_frontend_queues_what_we_run(page, source):
    queued, ours = page.evaluate(READ, drawn(source)), fmt.to_api(drawn(source), CLASSES)
    assert {i: (n["class_type"], n["inputs"]) for i, n in queued.items()} == {
        i: (n["class_type"], n["inputs"]) for i, n in ours.items()
    }
