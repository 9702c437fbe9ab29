"""What a probe found, as a table, a sheet and a map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helios_video.helios_core.measure import probe_report
from support.codec import find, small_codec, video


def test_the_report_says_where_the_first_decibel_goes():
    codec, _ = small_codec()
    found = replace(find(codec, [video(3)]), psnr=(30.0, 29.8, 29.4, 28.4, 25.0))
    assert probe_report.first_loss(found) == pytest.approx(0.14)
    assert probe_report.first_loss(replace(found, psnr=(30.0, 29.9, 29.9, 29.9, 29.1))) is None
    text = probe_report.table(found, "mine")
    assert text.startswith("mine: the first 1 dB is lost at 14.0 % noise") and "28.40" in text
    assert f"{found.sensitivity[2]:.4g}" in text and f"{found.error[2]:.2g}" in text
    untold = probe_report.table(replace(found, sigma=None, sampled=None))
    assert untold.splitlines()[-2].split()[2:4] == ["-", "-"]
    assert probe_report.rows(found)[1]["balance"] == pytest.approx(found.equilibrium[1])


def test_the_heat_map_is_bright_where_noise_shows_most():
    codec, _ = small_codec()
    found = find(codec, [video(3)])
    field = np.zeros((8, 8))
    field[2, 5] = 1
    colours = np.asarray(probe_report.heat_map(replace(found, pixel_rms=field)))
    assert colours.shape == (16, 16, 3)
    bright = (colours == (253, 231, 37)).all(-1)
    assert bright.sum() == 4 and bright[4:6, 10:12].all() and (colours[0, 0] == (68, 1, 84)).all()
    probe_report.heat_map(replace(found, pixel_rms=np.ones((8, 8))))  # all alike


def test_the_sheet_draws_what_was_found():
    codec, _ = small_codec()
    found = find(codec, [video(3)])
    page = np.asarray(probe_report.picture(found))
    for colour in ((0, 114, 178), (213, 94, 0)):  # both curves, both bars
        assert (page == colour).all(-1).sum() > 300
    probe_report.picture(replace(found, sigma=None, kept=(np.inf,) * 5))
