"""Bars are as high as their values."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core.measure import plots


def height(picture, colour):
    """Pixels of a colour in the tallest column of it."""
    found = (np.asarray(picture) == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2)
    return found[50:].sum(axis=0).max()


def test_bars_are_as_high_as_their_values():
    picture = plots.bar_plot({"a": [1.0, 2.0], "b": [-1.0, float("nan")]}, ["x", "y"], "title")
    tall, below = height(picture, plots.COLOURS[0]), height(picture, plots.COLOURS[1])
    assert tall == pytest.approx(2 * below, abs=2) and below > 20
    with pytest.raises(ValueError, match="no finite values"):
        plots.bar_plot({"a": [float("nan")]}, ["x"], "title")
    plots.bar_plot({"a": [0.0]}, ["x"], "title")
