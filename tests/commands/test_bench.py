"""`helios bench`: settings stand for what a checkpoint records, and the pipeline stays as it was."""

import json
import os
import sys
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import bench
from helios_video.helios_core.drawn import bench as measures


@pytest.mark.parametrize("failure", [None, ValueError("a setting that fails")])
def test_the_pipeline_keeps_its_config(monkeypatch, tmp_path, failure):
    """Each setting gets a handle of its own on the same parts; what comes after reads the checkpoint's own."""
    model, seen = load(), []
    before = model.config

    def grow(helios, *_, batch, drift, **options):
        seen.append((helios.config.defaults.boost_first_chunk, helios.plan(helios.history(64, 64), **options).boost))
        assert helios.parts is model.parts and helios.embeddings is model.embeddings
        if failure and len(seen) == 2:
            raise failure
        yield measures.Grown([], 1.0)

    monkeypatch.setattr(bench, "load", lambda path, **_: model)
    monkeypatch.setattr(measures, "grow", grow)
    for name in ("summarise", "write"):
        monkeypatch.setattr(measures, name, lambda *_: {})
    monkeypatch.setattr(bench, "show", lambda *_: None)
    settings = ["default", "boost_first_chunk=true", "boost_first_chunk=false", "default"]
    options = [word for setting in settings for word in ("--setting", setting)]
    assert main(["bench", "tiny", "-o", str(tmp_path / "out"), *options]) == (2 if failure else 0)
    assert seen == [(False, False), (True, True), (False, False)][: 2 if failure else 3]
    assert model.config is before and model.checkpoint.config is before


@pytest.mark.slow
def test_actors_measure_the_videos_that_one_process_does(tmp_path, monkeypatch):
    """Three batches of a seed and prompt numbers of their own, in whatever order they are done."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(pack.__file__).parents[1]), *sys.path]))
    line = ["bench", "tiny", "--prompts", "3", "--batch", "1", "--chunks", "2", "--setting", "steps=1,1,1"]
    assert main([*line, "-o", str(tmp_path / "one")]) == 0
    assert main([*line, "-o", str(tmp_path / "two"), "--ray", "--actors", "2"]) == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["steps=1,1,1"] for name in ("one", "two"))
    assert {k: v for k, v in one.items() if "second" not in k} == {k: v for k, v in two.items() if "second" not in k}
    assert (tmp_path / "one" / "results.csv").read_text() == (tmp_path / "two" / "results.csv").read_text()
