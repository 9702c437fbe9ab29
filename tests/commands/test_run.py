"""`helios run`: a workflow with overrides, progress and files."""

import json
from pathlib import Path

import pytest
from helios_video.helios_core.cli import main


class Paint:
    """A node for the workflow runner: reports progress, then saves a text."""

    FUNCTION, RETURN_TYPES, OUTPUT_NODE, CATEGORY = "paint", (), True, "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"colour": ("STRING", {"default": "red"}), "size": ("INT", {"default": 2, "min": 1})}}

    def paint(self, colour, size):
        from helios_video.helios_core.workflow.context import current

        for i in range(size):
            current().report(i + 1, size)
        path = current().output_dir / f"{colour}.txt"
        path.write_text(colour)
        current().files.append(path)
        return ()


def test_run_a_workflow_with_overrides(monkeypatch, tmp_path, capsys):
    import helios_video

    monkeypatch.setitem(helios_video.NODE_CLASS_MAPPINGS, "Paint", Paint)
    file = tmp_path / "paint.json"
    file.write_text(json.dumps({"1": {"class_type": "Paint", "inputs": {"colour": "red", "size": 3}}}))
    sets = ["--set", "1.colour=light=blue", "--set", "Paint.size=4"]
    assert main(["run", str(file), *sets, "--output-dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(tmp_path / "out" / "light=blue.txt")]
    assert "Paint" in printed.err and "4/4" in printed.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.json"], "no workflow file"),
        (["paint.json", "--set", "colour=red"], "wanted NODE.INPUT=VALUE"),
        (["paint.json", "--set", "1.colour"], "wanted NODE.INPUT=VALUE"),
        (["paint.json", "--set", "1.size=0"], "out of range"),
        (["paint.json", "--set", "9.size=1"], "no node '9'"),
    ],
)
def test_bad_workflow_runs(monkeypatch, tmp_path, capsys, arguments, says):
    import helios_video

    monkeypatch.setitem(helios_video.NODE_CLASS_MAPPINGS, "Paint", Paint)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paint.json").write_text(
        json.dumps({"1": {"class_type": "Paint", "inputs": {"colour": "a", "size": 1}}})
    )
    assert main(["run", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("*.txt"))


def test_what_a_run_needs_is_told_before_it_starts(tmp_path, capsys, monkeypatch):
    """A size that cannot fit was only noticed as memory ran out."""
    import helios_video
    from helios_video.helios_core.pipeline import Helios

    started = []
    monkeypatch.setattr(Helios, "sample", lambda *_, **__: started.append(1) or 1 / 0)
    workflow = Path(helios_video.__file__).parent / "workflows" / "text_to_video.json"
    size = ["--set", "HistoryMemory.width=16384", "--set", "HistoryMemory.height=8192"]
    assert main(["run", str(workflow), "--output-dir", str(tmp_path), *size]) == 1
    error = capsys.readouterr().err
    assert error.count("needed with offload") == 2 and "warning: needs" in error and len(started) == 1
