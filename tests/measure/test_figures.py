"""Figures through matplotlib: values stand where they should, names can be told, and what to install is said."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.measure import figures
from helios_video.helios_core.measure.plots import COLOURS


def places(picture, colour) -> np.ndarray:
    """(y, x) of the pixels of a colour."""
    return np.argwhere((np.asarray(picture) == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1))


def test_lines_stand_in_their_order_and_a_gap_stays_a_gap():
    panel = figures.Lines({"low": [0, 0, 0], "high": [1, np.nan, 1]}, "two", x_label="step", y_label="dB")
    low, high = (places(figures.render([[panel]]), colour) for colour in COLOURS[:2])
    plot = low[:, 0] > 60  # below the legend
    assert np.median(low[plot][:, 0]) > np.median(high[:, 0]) + 50
    assert len(low) > 3 * len(high) > 0  # a line, and two marks


def test_repeats_are_a_mean_with_a_band_over_their_range():
    rows = {"a": [[0.0, 0.0], [2.0, 2.0]]}
    plain, banded = (figures.Lines(v, "t", limits=(-1, 3)) for v in ({"a": [1.0, 1.0]}, rows))
    pictures = [np.asarray(figures.render([[panel]])).astype(int) for panel in (plain, banded)]
    assert all(len(places(picture, COLOURS[0])) > 200 for picture in pictures)
    shade = (pictures[1][..., 2] - pictures[1][..., 0] > 20) & (abs(pictures[1] - pictures[0]).sum(-1) > 20)
    assert 0.3 < np.ptp(np.argwhere(shade)[:, 0]) / pictures[1].shape[0] < 0.6  # half of the axis, without margins


def test_dots_stand_where_their_values_are():
    rows = {"a": [1.0], "b": [-1.0, np.nan], "c": [0.0]}
    intervals = {"a": (0.5, 1.5), "b": (-1.5, -0.5), "c": (np.nan, np.nan)}
    picture = figures.render([[figures.Dots(rows, intervals, "t", x_label="dB", marked=["a"])]])
    b, a = (places(picture, colour) for colour in COLOURS[:2])
    assert a[:, 1].mean() > b[:, 1].mean() and a[:, 0].mean() < b[:, 0].mean()


def test_nothing_finite_is_an_empty_plot():
    dots = figures.Dots({"a": [np.nan]}, {"a": (np.nan, np.nan)}, "t")
    assert figures.render([[figures.Lines({"a": [np.nan, np.nan]}, "t"), dots]]).width > 500


def test_strips_show_their_first_and_last_frame():
    frames = np.zeros((10, 8, 8, 3), dtype=np.uint8)
    frames[0], frames[-1] = (255, 0, 0), (0, 0, 255)
    picture = figures.render([[figures.Strip(frames, "from red to blue", 4)]])
    red, blue = places(picture, "#ff0000"), places(picture, "#0000ff")
    assert len(red) == pytest.approx(len(blue), rel=0.1) and red[:, 1].max() < blue[:, 1].min()


def test_a_legend_is_told_once_where_names_are_the_same():
    alike = [[figures.Lines({"a": [0, 1], "b": [1, 0]}, str(k))] for k in range(3)]
    other = [[figures.Lines({"a": [0, 1], "c": [1, 0]}, "0")], *alike[1:]]
    assert figures.render(other).height < figures.render(alike).height  # inside the panels


@pytest.fixture
def without_matplotlib(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    "command", [["study", "ul"], ["study", "policies"], ["train", "ve", "--data", "photos"], ["train", "tiny"]]
)
def test_what_to_install_is_said_before_any_work(without_matplotlib, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "pip install 'matplotlib" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
