"""The study of control, at its smallest: one arm after another, kept, gone on with, and a page of what is there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.study.control import ARMS, QUICK, arms, report, study
from helios_video.helios_core.study.control.measure import nyquist
from helios_video.helios_core.training.control import drawn

THREE = ("content", "noise", "analytic")
SIZES = replace(QUICK, seeds=1, steps=1, videos=1, crossed=1, batch=1, longer=2)


def test_power_at_the_highest_frequencies_is_that_of_checkers_and_stripes():
    x = np.zeros((3, 1, 1, 8, 8))
    x[0, 0, 0, ::2] = 1
    x[1, 0, 0, ::2, ::2] = x[1, 0, 0, 1::2, 1::2] = 1
    x[2, 0, 0, :4] = 1
    power = nyquist(x)
    assert power[0] > 10 and power[1] > 10 and power[2] < 1e-9


def stop_after(count):
    """A tell that ends the run, as a kill would, after so many parts."""
    told = []

    def tell(text):
        told.append(text)
        if len(told) == count:
            raise KeyboardInterrupt

    return tell, told


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_and_trains_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "CLIPS", 2)
    for module in (arms, report):
        monkeypatch.setattr(module, "ARMS", THREE)
    helios = load(backend="torch", vae_dtype="fp32")
    page, how = tmp_path / "page.md", {"page": tmp_path / "page.md", "command": "helios study control"}
    tell, told = stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        study(helios, SIZES, tmp_path / "run", tell=tell, **how)
    kept = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(kept["arms"]) == list(THREE[:2])
    first = kept["arms"]["content"]["0"]
    tell, told = stop_after(0)
    study(helios, SIZES, tmp_path / "run", tell=tell, **how)
    assert [line.split()[1] for line in told if "seed" in line] == ["analytic,"]
    text = page.read_text()
    assert set(THREE) < set(ARMS)
    assert "2 of 2 adapters" in text and "Train control adapters with" in text and "Another policy at inference" in text
    assert json.loads((tmp_path / "page" / "results.json").read_text())["arms"]["content"]["0"] == first
    with pytest.raises(ValueError, match="of other sizes or weights"):
        study(helios, replace(SIZES, steps=2), tmp_path / "run", **how)
