"""The stand-ins that give or choose a value, and newer versions of core's nodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.workflow.run import run
from PIL import Image
from support.sums import CLASSES, Number


@pytest.fixture
def texts(tmp_path):
    def texts(source, **options):
        Number.made.clear()
        (tmp_path / "flow.json").write_text(json.dumps(source))
        return run(tmp_path / "flow.json", CLASSES, output_dir=tmp_path / "out", input_dir=tmp_path, **options).texts

    return texts


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


@pytest.mark.parametrize(
    ("kind", "inputs", "shown"),
    [
        ("PrimitiveInt", {"value": -5}, "-5"),
        ("PrimitiveFloat", {"value": 0.5}, "0.5"),
        ("PrimitiveBoolean", {"value": True}, "True"),
        ("PrimitiveString", {"value": "a\nb"}, "a\nb"),
        ("PrimitiveStringMultiline", {"value": "a\nb"}, "a\nb"),
        ("SeedNode", {"seed": 2**63 - 1}, str(2**63 - 1)),
    ],
)
def test_values(texts, kind, inputs, shown):
    assert texts({"1": node(kind, **inputs), "2": node("PreviewAny", source=["1", 0])}) == {"PreviewAny": shown}


def switched(kind, **inputs):
    numbers = {str(i): node("Number", text="x", seed=i, scale=1, mode="plain", minus=False) for i in (1, 2)}
    wires = {name: [value, 0] if isinstance(value, str) else value for name, value in inputs.items()}
    return {**numbers, "3": node(kind, **wires), "4": node("PreviewAny", source=["3", 0])}


@pytest.mark.parametrize("kind", ["ComfySwitchNode", "ComfySoftSwitchNode"])
@pytest.mark.parametrize(("chosen", "shown"), [(True, 2), (False, 1)])
def test_a_switch_runs_only_what_it_chooses(texts, kind, chosen, shown):
    assert texts(switched(kind, switch=chosen, on_false="1", on_true="2")) == {"PreviewAny": f"{shown}.0"}
    assert Number.made == [shown]


def test_a_soft_switch_takes_the_only_wire(texts):
    for chosen in (True, False):
        assert texts(switched("ComfySoftSwitchNode", switch=chosen, on_false="1")) == {"PreviewAny": "1.0"}
        assert texts(switched("ComfySoftSwitchNode", switch=chosen, on_true="2")) == {"PreviewAny": "2.0"}
    with pytest.raises(ValueError, match=r"node 3 \(ComfySoftSwitchNode\): wire something to"):
        texts(switched("ComfySoftSwitchNode", switch=True))


def test_a_switch_that_a_wire_sets(texts):
    source = switched("ComfySwitchNode", switch="5", on_false="1", on_true="2")
    assert texts({**source, "5": node("PrimitiveBoolean", value=True)}) == {"PreviewAny": "2.0"}


def saving(**inputs):
    return {
        "1": node("LoadImage", image="pic.png [input]"),
        "2": node("CreateVideo", images=["1", 0], fps=5, **inputs.pop("create", {})),
        "3": node("SaveVideo", video=["2", 0], filename_prefix="x", **inputs),
        "4": node("PreviewImage", images=["1", 0]),
    }


def test_newer_versions_of_cores_nodes(texts, tmp_path):
    """`format` brings its `codec` along; other bit depths and encodings are refused, and not lost without a word."""
    Image.fromarray(np.full((16, 32, 3), 90, np.uint8)).save(tmp_path / "pic.png")
    told = texts(saving(format="mp4", **{"format.codec": "h264", "codec": "auto", "format.codec.encoding": "auto"}))
    assert told == {"PreviewImage": "1 pictures, 32x16, shown only in ComfyUI; Save Image writes them"}
    assert texts(saving(format="auto", create={"bit_depth": 8}))
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    with pytest.raises(ValueError, match=r"node 3 \(SaveVideo\).format.codec.encoding: 're-encode' is nothing"):
        texts(saving(format="mp4", **{"format.codec": "h264", "format.codec.encoding": "re-encode"}))
    with pytest.raises(ValueError, match=r"node 2 \(CreateVideo\).bit_depth: 10 is nothing .*, 8 is"):
        texts(saving(format="mp4", create={"bit_depth": 10}))
    with pytest.raises(ValueError, match="'av1' is not one of auto, h264"):
        texts(saving(format="mp4", **{"format.codec": "av1"}))


def test_files_of_the_output_folder(texts, tmp_path):
    (tmp_path / "out").mkdir()
    video.write_video(tmp_path / "out" / "clip.mp4", np.zeros((3, 16, 32, 3), np.uint8), fps=6)
    loaded = {
        "1": node("LoadVideo", file="clip.mp4 [output]"),
        "2": node("GetVideoComponents", video=["1", 0]),
        **{f"{i}": node("PreviewAny", source=["2", i]) | {"_meta": {"title": f"{i}"}} for i in (3, 4)},
    }
    assert texts({**loaded, "5": {**node("PreviewAny", source=["2", 2]), "_meta": {"title": "rate"}}}) == {
        "3": "8",
        "4": "sRGB",
        "rate": "6.0",
    }
    with pytest.raises(ValueError, match=r"no sound at .*gone.wav"):
        texts({"1": node("LoadAudio", audio="gone.wav"), "2": node("PreviewAny", source=["1", 0])})
