"""The command line with a stand-in for the model."""

import pytest
from helios_video.helios_core.commands import render
from support.cli import Fake


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A `Fake` that the commands load, in a folder of the test's own."""
    made = Fake()
    monkeypatch.setattr(render, "load", made.load)
    monkeypatch.chdir(tmp_path)
    return made
