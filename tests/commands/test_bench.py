"""`helios bench`: settings stand for what a checkpoint records, and the pipeline stays as it was."""

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
