"""The workflow files before others' checkers that ask a running ComfyUI: comfy-test's validation, and comfy-lint.

pip install comfy-test==0.4.15 comfy-lint==0.1.0. What they do not know of ComfyUI is taken out before, or passed over.
"""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow.format import CONTROLS
from support.comfyui import NEEDED, ROOT

pytestmark = NEEDED
FILES = sorted((ROOT / "workflows").glob("*.json"))
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))


@pytest.fixture(scope="module")
def nodes(server):
    return json.loads(server.get("/object_info"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_comfy_test_finds_the_workflow_valid(nodes, file):
    validator = pytest.importorskip("comfy_test.comfyui.validator")
    graph = json.loads(file.read_text(encoding="utf-8"))
    graph["nodes"] = [node for node in graph["nodes"] if node["type"] in nodes]  # notes are of the frontend alone
    for node in graph["nodes"]:
        if isinstance(values := node.get("widgets_values"), list):  # it takes a seed's control for the next value
            node["widgets_values"] = [value for value in values if value not in CONTROLS]
    assert [str(error) for error in validator.WorkflowValidation(nodes).validate(graph).errors] == []


@pytest.mark.parametrize("file", TWINS, ids=lambda file: file.stem)
def test_comfy_lint_finds_the_twin_valid(nodes, file, tmp_path):
    lint = pytest.importorskip("comfy_lint")
    (tmp_path / "nodes.json").write_text(json.dumps(nodes))
    schema = lint.load_schema(cache_path=str(tmp_path / "nodes.json"))
    found = lint.lint_workflow(json.loads(file.read_text(encoding="utf-8")), schema)
    assert [f for f in found if not _is_union(f) and not _is_upload(f)] == []


def _is_union(found) -> bool:
    """A wire into an input of several types, "VAE,UL_DECODER", which the checker takes for one."""
    expected, _, given = found.message.partition(" but node ")
    kinds, given = expected.rsplit(" ", 1)[-1].split(","), given.rsplit(" ", 1)[-1]
    return found.rule == "type-mismatch" and given in kinds


def _is_upload(found) -> bool:
    """A file that the user brings."""
    return found.rule == "invalid-enum" and found.class_type in ("LoadImage", "LoadVideo")
