"""The frontend's file format becomes the API's."""

from __future__ import annotations

import pytest
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.standins import NODES
from support.sums import CLASSES, node, ui


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


@pytest.mark.parametrize(
    ("kind", "saved", "inputs"),
    [
        ("SaveVideo", ["p", "mp4", "h264"], {"filename_prefix": "p", "format": "mp4", "codec": "h264"}),
        ("SaveVideo", ["p"], {"filename_prefix": "p", "format": "auto", "codec": "auto"}),
        (
            "SaveVideo",
            ["p", "mp4", "h264", "re-encode", 20],
            {"filename_prefix": "p", "format": "mp4", "codec": "h264", "format.codec.encoding": "re-encode"}
            | {"codec.encoding": 20},
        ),
        ("CreateVideo", [24], {"fps": 24}),
        ("CreateVideo", [24, 10], {"fps": 24, "bit_depth": 10}),
        ("LoadImage", ["a.png", "image"], {"image": "a.png"}),
        ("LoadImage", ["a.png", {"type": "button"}], {"image": "a.png"}),
        ("SaveImage", {"filename_prefix": "p", "videopreview": {}}, {"filename_prefix": "p"}),
        ("Choosing", ["two", 7, "fixed", "end"], {"way": "two", "way.seed": 7, "way.more": "end", "last": 0.5}),
        ("Choosing", ["one", 0.25], {"way": "one", "last": 0.25}),
        ("Choosing", [], {"way": "one", "last": 0.5}),
        ("PartnerSeed", [3, "fixed", 2], {"image_seed": 3, "count": 2}),
        ("Shown", [["a", 0]], {"list": {"__value__": ["a", 0]}}),
    ],
)
def test_values_by_position(kind, saved, inputs):
    source = {"nodes": [node(1, kind, [], [], saved)], "links": []}
    assert fmt.to_api(source, {**NODES, **OTHERS})["1"]["inputs"] == inputs


def kind_of(**inputs):
    return type("Kind", (), {"INPUT_TYPES": classmethod(lambda cls: {"required": inputs})})


SEEDED = {"seed": ("INT", {"control_after_generate": True}), "more": ("STRING", {}), "wire": ("IMAGE", {})}
WAYS = [{"key": "one", "inputs": {}}, {"key": "two", "inputs": {"required": SEEDED}}]
OTHERS = {
    "Choosing": kind_of(way=("COMFY_DYNAMICCOMBO_V3", {"options": WAYS}), last=("FLOAT", {"default": 0.5})),
    "PartnerSeed": kind_of(image_seed=("INT", {}), count=("INT", {})),
    "Shown": kind_of(list=("ANYTHING", {"socketless": True}), wired=("INT", {"forceInput": True})),
}
