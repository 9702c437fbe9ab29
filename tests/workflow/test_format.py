"""The frontend's file format becomes the API's."""

from __future__ import annotations

from helios_video.helios_core.workflow import format as fmt
from support.sums import CLASSES, ui


def test_the_ui_format_becomes_the_api_format():
    prompt = fmt.to_api(ui(), CLASSES)
    assert list(prompt) == ["1", "2", "4", "6"]
    assert prompt["1"]["inputs"] == {"text": "x", "seed": 3, "scale": 2.0, "mode": "plain", "minus": False}
    assert prompt["2"]["inputs"] == {"text": "y", "seed": 4, "scale": 1.0, "mode": "double", "minus": True}
    assert prompt["4"]["inputs"] == {"a": ["1", 0], "b": ["2", 0]}
    assert prompt["6"]["inputs"] == {"value": ["4", 0]}
    assert prompt["1"]["_meta"]["title"] == "First"


def test_a_seed_without_its_control_shifts_nothing():
    """comfy-cli reads such files so too; an editor would not, so none has written them."""
    source = ui()
    source["nodes"][0]["widgets_values"] = ["x", 3, 2.0, "plain"]
    assert fmt.to_api(source, CLASSES)["1"]["inputs"]["scale"] == 2.0
