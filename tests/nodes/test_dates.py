"""Dates in the names of files."""

from datetime import datetime

import helios_video as pack
import pytest
from helios_video.helios_core.workflow import dates

NOW = datetime(2026, 3, 4, 15, 6, 7)


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("helios/run", "helios/run"),
        ("%date:yyyy-MM-dd%/run", "2026-03-04/run"),
        ("run_%date:yy_M_d_hhmmss%", "run_26_3_4_150607"),
        ("%date%", "20260304150607"),
        ("%year%-%month%-%day% %hour%%minute%%second%", "2026-03-04 150607"),
        ("100 % sure %Seed.value%", "100 % sure %Seed.value%"),
    ],
)
def test_a_date_is_filled_in(name, filled):
    assert dates.fill(name, NOW) == filled


def test_a_run_is_saved_under_its_date(tmp_path, monkeypatch, fake_helios):
    monkeypatch.chdir(tmp_path)
    history = pack.NODE_CLASS_MAPPINGS["HistoryMemory"]().start(fake_helios, 0, 0)[0]
    save = pack.NODE_CLASS_MAPPINGS["HeliosSaveHistory"]
    assert save.VALIDATE_INPUTS("%date:yyyy-MM-dd%/run") is True and save.VALIDATE_INPUTS(None) is True
    (name,) = save().save(fake_helios, history, "%date:yyyy-MM-dd%/run")["result"]
    assert name == f"{datetime.now():%Y-%m-%d}/run_00001_.safetensors" and (tmp_path / name).is_file()
