"""helios_core.workflow: conversion, overrides, checks and execution, with small nodes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core.join import video
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow.context import Progress, current
from helios_video.helios_core.workflow.run import run

FOLDER = Path(pack.__file__).parent / "workflows"


class Number:
    FUNCTION, RETURN_TYPES = "make", ("NUMBER", "STRING")
    made: list = []

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "text": ("STRING", {"default": "none"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 9}),
                "scale": ("FLOAT", {"default": 1.0}),
                "mode": (["plain", "double"], {"default": "plain"}),
                "minus": ("BOOLEAN", {"default": False}),
            }
        }

    def make(self, text, seed, scale, mode, minus):
        Number.made.append(seed)
        value = seed * scale * (2 if mode == "double" else 1) * (-1 if minus else 1)
        return value, text


class Add:
    FUNCTION, RETURN_TYPES = "add", ("NUMBER",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("NUMBER", {}), "b": ("NUMBER,IMAGE", {})}, "optional": {"c": ("NUMBER", {})}}

    def add(self, a, b, c=0):
        current().report(1, 2)
        return {"ui": {}, "result": (a + b + c,)}


class Show:
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "show", (), True
    shown: list = []

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"value": ("*", {})},
            "hidden": {"prompt": "PROMPT", "extra": "EXTRA_PNGINFO", "me": "UNIQUE_ID"},
        }

    def show(self, value, prompt, extra, me):
        Show.shown.append((value, me, sorted(prompt), "workflow" in extra))
        return ()


CLASSES = {"Number": Number, "Add": Add, "Show": Show}


@pytest.fixture(autouse=True)
def forget():
    Number.made.clear()
    Show.shown.clear()


def api():
    number = {"text": "x", "seed": 3, "scale": 1, "mode": "plain", "minus": False}
    return {
        "1": {"class_type": "Number", "inputs": dict(number), "_meta": {"title": "First"}},
        "2": {"class_type": "Number", "inputs": {**number, "seed": 4}},
        "3": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["2", 0], "c": ["1", 0]}},
        "4": {"class_type": "Show", "inputs": {"value": ["3", 0]}},
        "5": {"class_type": "Number", "inputs": {**number, "seed": 9}},
    }


@pytest.fixture
def go(tmp_path):
    def go(source, overrides=None, **options):
        path = tmp_path / "flow.json"
        path.write_text(json.dumps(source))
        return run(path, CLASSES, overrides, output_dir=tmp_path / "out", **options)

    return go


def test_it_runs_what_outputs_need_once_each(go):
    seen = []
    go(api(), on_progress=seen.append)
    assert Show.shown == [(10.0, "4", ["1", "2", "3", "4", "5"], False)]
    assert sorted(Number.made) == [3, 4]
    assert seen == [
        *(Progress("1", "First", 0, 0), Progress("2", "Number", 0, 0)),
        *(Progress("3", "Add", 0, 0), Progress("3", "Add", 1, 2), Progress("4", "Show", 0, 0)),
    ]
    assert current() is None


@pytest.mark.parametrize(
    ("overrides", "result"),
    [
        ({"1.seed": "5"}, 14),
        ({"First.seed": "5"}, 14),
        ({"Number.seed": 1}, 3),
        ({"1.scale": "0.5", "2.mode": "double"}, 11),
        ({"First.minus": "yes"}, -2),
    ],
)
def test_overrides_go_by_id_title_or_type(go, overrides, result):
    go(api(), overrides)
    assert Show.shown[0][0] == result


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": 1}, "wanted NODE.INPUT=VALUE"),
        ({"Frist.seed": 1}, "no node 'Frist' .did you mean 'First'"),
        ({"1.sed": 1}, "no input 'sed' .did you mean 'seed'.*text, seed, scale"),
        ({"1.seed": "2.5"}, "wanted INT, got '2.5'"),
        ({"1.seed": "10"}, "10 is out of range, max is 9"),
        ({"1.minus": "perhaps"}, "wanted BOOLEAN"),
        ({"1.mode": "duoble"}, "'duoble' is not one of plain, double .did you mean 'double'"),
        ({"3.a": "4"}, "'a' takes a wire of type NUMBER"),
    ],
)
def test_wrong_overrides_say_what_there_is(go, overrides, message):
    with pytest.raises(ValueError, match=message):
        go(api(), overrides)
    assert not Number.made


def broken(change):
    source = api()
    change(source)
    return source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["1"].update(class_type="Nubmer"), "does not know: 'Nubmer' .did you mean 'Number'"),
        (lambda s: s.pop("4"), "saves nothing"),
        (lambda s: s["3"]["inputs"].pop("a"), r"node 3 \(Add\) needs a"),
        (lambda s: s["1"]["inputs"].update(mode="loud"), r"node 1 \(First, Number\).mode: 'loud' is not one of"),
        (lambda s: s["1"]["inputs"].update(seed=2.5), "wanted INT, got 2.5"),
        (lambda s: s["3"]["inputs"].update(a=["3", 0]), "in a circle: 3 -> 3"),
        (lambda s: s["3"]["inputs"].update(a=["7", 0]), "wired to node 7, which is not there"),
        (lambda s: s["3"]["inputs"].update(a=["1", 5]), "has 2 outputs, none numbered 5"),
        (lambda s: s["3"]["inputs"].update(a=["1", 1]), r"wanted NUMBER, node 1 \(First, Number\) gives STRING"),
        (lambda s: s["3"]["inputs"].update(a=4), "wanted a wire of type NUMBER, got the value 4"),
    ],
)
def test_a_broken_workflow_is_refused_before_anything_runs(go, change, message):
    with pytest.raises(ValueError, match=message):
        go(broken(change))
    assert not Number.made


def test_files_that_are_no_workflow(go, tmp_path):
    with pytest.raises(ValueError, match="no workflow file at"):
        run(tmp_path / "gone.json", CLASSES, output_dir=tmp_path)
    with pytest.raises(ValueError, match="is no workflow"):
        go({"a": 1})
    (tmp_path / "flow.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        run(tmp_path / "flow.json", CLASSES, output_dir=tmp_path)


def test_an_unwritable_output_folder_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "flow.json").write_text(json.dumps(api()))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        run(tmp_path / "flow.json", CLASSES, output_dir=tmp_path / "file" / "out")
    assert not Number.made


def node(number, kind, inputs, outputs, widgets=None, **more):
    return {"id": number, "type": kind, "inputs": inputs, "outputs": outputs, "widgets_values": widgets, **more}


def ui():
    """Number -> Reroute -> Add <- PrimitiveNode-seeded Number; a bypassed Add in the way; a muted Show; a note."""
    out = [{"name": "n", "type": "NUMBER", "links": []}, {"name": "s", "type": "STRING", "links": []}]
    seed = [{"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": 8}]
    nodes = [
        node(1, "Number", [], out, ["x", 3, "randomize", 2.0], title="First"),
        node(2, "Number", seed, out, ["y", 1, "fixed", 1.0, "double", True, "surplus"], mode=0),
        node(3, "Reroute", [{"name": "", "type": "*", "link": 1}], [{"name": "", "type": "NUMBER", "links": [2]}]),
        node(
            4,
            "Add",
            [{"name": n, "type": t, "link": link} for n, t, link in (("a", "NUMBER", 2), ("b", "NUMBER,IMAGE", 3))],
            [{"name": "sum", "type": "NUMBER", "links": [4]}],
        ),
        node(
            5,
            "Add",
            [{"name": n, "type": "NUMBER", "link": link} for n, link in (("a", 4), ("b", 6))],
            [{"name": "sum", "type": "NUMBER", "links": [5]}],
            mode=4,
        ),
        node(6, "Show", [{"name": "value", "type": "*", "link": 5}], []),
        node(7, "Show", [{"name": "value", "type": "*", "link": 7}], [], mode=2),
        node(8, "PrimitiveNode", [], [{"name": "INT", "type": "INT", "links": [8]}], [4, "fixed"]),
        node(9, "MarkdownNote", [], [], ["words"]),
    ]
    links = [[1, 1, 0, 3, 0, "*"], [2, 3, 0, 4, 0, "*"], [3, 2, 0, 4, 1, "*"], [4, 4, 0, 5, 0, "*"]]
    links += [[5, 5, 0, 6, 0, "*"], [6, 1, 0, 5, 1, "*"], [7, 1, 0, 7, 0, "*"], [8, 8, 0, 2, 0, "INT"]]
    return {"nodes": nodes, "links": links, "version": 0.4}


def test_the_ui_format_becomes_the_api_format():
    prompt = fmt.to_api(ui(), CLASSES)
    assert list(prompt) == ["1", "2", "4", "6"]
    assert prompt["1"]["inputs"] == {"text": "x", "seed": 3, "scale": 2.0, "mode": "plain", "minus": False}
    assert prompt["2"]["inputs"] == {"text": "y", "seed": 4, "scale": 1.0, "mode": "double", "minus": True}
    assert prompt["4"]["inputs"] == {"a": ["1", 0], "b": ["2", 0]}
    assert prompt["6"]["inputs"] == {"value": ["4", 0]}
    assert prompt["1"]["_meta"]["title"] == "First"


def test_a_ui_workflow_runs(go):
    go(ui())
    assert Show.shown == [(6.0 - 8.0, "6", ["1", "2", "4", "6"], True)]


def test_shifted_widget_values_are_refused():
    source = ui()
    source["nodes"][0]["widgets_values"] = ["x", 3, 2.0, "plain"]
    with pytest.raises(ValueError, match="has 2.0 behind seed.*its values are shifted"):
        fmt.to_api(source, CLASSES)


def test_a_circle_of_reroutes_and_subgraphs_are_refused(go):
    source = ui()
    source["links"][0] = [1, 3, 0, 3, 0, "*"]
    with pytest.raises(ValueError, match="in a circle through link"):
        go(source)
    with pytest.raises(ValueError, match="holds subgraphs"):
        go({**ui(), "definitions": {"subgraphs": [{}]}})


def test_pictures_and_videos_go_in_and_out(tmp_path):
    """LoadVideo -> GetVideoComponents -> CreateVideo -> SaveVideo: the frames come out again, the workflow inside."""
    frames = np.zeros((6, 32, 48, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    video.write_video(tmp_path / "in.mp4", frames, fps=12)
    source = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "in.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": ["2", 2]}},
        "4": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["3", 0], "filename_prefix": "video/x", "format": "auto", "codec": "auto"},
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(source))
    out = tmp_path / "out"
    result = run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path)
    assert result.files == [out / "video" / "x_00001_.mp4"] and result.texts == {"PreviewAny": "12.0"}
    assert np.abs(video.read_frames(result.files[0]).astype(int) - frames).max() <= 4
    assert video.probe(result.files[0]).fps == 12
    assert video.read_metadata(result.files[0])["prompt"]["1"]["class_type"] == "LoadVideo"
    assert run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path).files == [out / "video" / "x_00002_.mp4"]
    assert [p.name for p in out.iterdir()] == ["video"], "files on the way are left behind"
    with pytest.raises(ValueError, match="no video at .*gone.mp4"):
        run(tmp_path / "flow.json", {}, {"LoadVideo.file": "gone.mp4"}, output_dir=out, input_dir=tmp_path)
    with pytest.raises(ValueError, match="leads out of the output folder"):
        run(tmp_path / "flow.json", {}, {"SaveVideo.filename_prefix": "../x"}, output_dir=out, input_dir=tmp_path)


@pytest.mark.parametrize("name", ["text_to_video", "composed_chunk", "api/text_to_video", "api/composed_chunk"])
def test_our_workflows_run_with_our_nodes(name, tmp_path, fake_loader):
    torch.set_num_threads(1)
    result = run(FOLDER / f"{name}.json", pack.NODE_CLASS_MAPPINGS, {"Seed.value": 7}, output_dir=tmp_path)
    (file,) = result.files
    chunks = 4 if "text" in name else 1
    info = video.probe(file)
    assert (info.frames, info.width, info.height, info.fps) == (33 * chunks, 64, 128, 24)
    assert (info.colorspace, info.pixel_format) == (1, "yuv420p")
    metadata = video.read_metadata(file)
    assert "prompt" in metadata and ("workflow" in metadata) == ("api" not in name)
    assert [call["seed"] for call in fake_loader.calls] == [7] * chunks
    assert [call["history"].chunk for call in fake_loader.calls] == list(range(chunks))
    if chunks == 1:
        assert "4x2" in result.texts["Noise report"]
        assert fake_loader.calls[0]["start"].shape == (1, 16, 9, 4, 2)


def test_a_failing_run_leaves_its_finished_chunks_playable(tmp_path, fake_loader, monkeypatch, caplog):
    genuine = fake_loader.sample

    def sample(history, positive, **options):
        if history.chunk == 2:
            raise ValueError("NaN in chunk 2")
        return genuine(history, positive, **options)

    monkeypatch.setattr(fake_loader, "sample", sample)
    with pytest.raises(ValueError, match="NaN in chunk 2"):
        run(FOLDER / "text_to_video.json", pack.NODE_CLASS_MAPPINGS, output_dir=tmp_path)
    chunks = sorted(tmp_path.rglob("chunk_*.mp4"))
    assert [video.probe(path).frames for path in chunks] == [33, 33]
    assert str(chunks[0].parent.parent) in caplog.text
