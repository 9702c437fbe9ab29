"""helios_core.workflow: conversion, overrides, checks and execution, with small nodes of its own."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.workflow.context import Progress, current
from helios_video.helios_core.workflow.run import run
from support.sums import CLASSES, Add, Number, Show, ui


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
    with pytest.raises(ValueError, match="cannot write into"):
        run(tmp_path / "flow.json", CLASSES, output_dir=tmp_path / "file" / "out")
    assert not Number.made


def test_a_ui_workflow_runs(go):
    go(ui())
    assert Show.shown == [(6.0 - 8.0, "6", ["1", "2", "4", "6"], True)]


def test_a_circle_of_reroutes_is_refused_and_unused_subgraphs_are_not_read(go):
    source = ui()
    source["links"][0] = [1, 3, 0, 3, 0, "*"]
    with pytest.raises(ValueError, match="in a circle through link"):
        go(source)
    go({**ui(), "definitions": {"subgraphs": [{"id": "never used"}, None]}})


def test_a_chain_of_two_thousand_nodes(go):
    source = {"0": api()["1"], **{str(i): adds(str(i - 1)) for i in range(1, 2001)}}
    go({**source, "end": {"class_type": "Show", "inputs": {"value": ["2000", 0]}}}, {"First.seed": 0})
    assert Show.shown[0][0] == 0 and len(Number.made) == 1


def adds(before):
    return {"class_type": "Add", "inputs": {"a": [before, 0], "b": [before, 0]}}


class Breaks(Number):
    def make(self, text, seed, scale, mode, minus):
        raise ValueError("the text is too plain")


class BreaksElsewhere(Number):
    def make(self, text, seed, scale, mode, minus):
        return 1 / 0, text


def test_an_error_of_a_run_names_the_node(go, monkeypatch):
    monkeypatch.setitem(CLASSES, "Number", Breaks)
    with pytest.raises(ValueError, match=r"^node 1 \(First, Number\): the text is too plain"):
        go(api())
    monkeypatch.setitem(CLASSES, "Number", BreaksElsewhere)
    with pytest.raises(ZeroDivisionError) as raised:
        go(api())
    assert raised.value.__notes__ == ["node 1 (First, Number)"]


def test_what_is_wrong_with_a_file_names_it(go):
    with pytest.raises(ValueError, match=r"^flow.json: node 1 \(First, Number\).text: wanted STRING, got null"):
        go(broken(lambda s: s["1"]["inputs"].update(text=None)))
    with pytest.raises(ValueError, match="flow.json is no workflow: .*; node 2 has none"):
        go(broken(lambda s: s["2"].update(class_type=None)))
    with pytest.raises(ValueError, match=r"the group node 'mine'; convert it .* \(node 1, 2\)"):
        go(broken(lambda s: [s[i].update(class_type="workflow>mine") for i in "12"]))


def test_a_muted_node_is_named_where_it_is_missed(go):
    source = ui()
    source["nodes"][1]["mode"] = 2
    with pytest.raises(ValueError, match=r"node 4 \(Add\) needs b: .*; b: node 2 \(Number\) is muted"):
        go(source)


class Optional(Add):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {**super().INPUT_TYPES()["required"]}}

    def add(self, a=None, b=None):
        if b is None:
            raise ValueError("wire b")


def test_a_muted_node_is_named_where_a_node_fails_for_want_of_it(go, monkeypatch):
    monkeypatch.setitem(CLASSES, "Add", Optional)
    source = ui()
    source["nodes"][1]["mode"] = 2
    with pytest.raises(ValueError, match=r"^node 4 \(Add\): wire b; b: node 2 \(Number\) is muted"):
        go(source)


class Seeded(Number):
    @classmethod
    def INPUT_TYPES(cls):
        types = super().INPUT_TYPES()
        types["required"]["seed"] = ("INT", {"default": 0, "min": 0, "max": 2**53 - 1})
        return types

    @classmethod
    def VALIDATE_INPUTS(cls, seed):
        return 0 <= seed < 2**64 or "seed: 64 bits"


def test_seeds_that_a_browser_cannot_hold_are_read_from_files(go, monkeypatch):
    monkeypatch.setitem(CLASSES, "Number", Seeded)
    go(broken(lambda s: s["1"]["inputs"].update(seed=2**64 - 1)))
    assert 2**64 - 1 in Number.made
    with pytest.raises(ValueError, match="seed: 64 bits"):
        go(broken(lambda s: s["1"]["inputs"].update(seed=2**64)))
