"""Plots with Pillow alone: bars are as high as their values, lines have their colours."""

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


def test_lines_have_their_colours_and_ticks_are_round():
    picture = plots.line_plot({"a": [0, 1, 2], "b": [2, float("nan"), 0]}, "title", x_label="chunk")
    colours = {tuple(c) for c in np.asarray(picture).reshape(-1, 3)}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours
    with pytest.raises(ValueError, match="no finite"):
        plots.line_plot({"a": [float("nan")]}, "empty")
    assert plots.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
