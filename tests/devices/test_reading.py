"""The bar of what takes a while to read: silent for a moment's work."""

import time

from helios_video.helios_core.checkpoint import tell, telling
from helios_video.helios_core.devices import reading


def read(steps: int, capsys) -> str:
    with reading.bar("reading transformer", 1000) as report, telling(report, 1000):
        for _ in range(steps):
            time.sleep(0.05)
            tell(1000 // steps)
    return capsys.readouterr().err


def test_it_appears_after_a_moment_with_the_time_left(capsys, monkeypatch):
    assert read(2, capsys) == ""
    monkeypatch.setattr(reading, "DELAY", 0.2)
    said = read(10, capsys)
    assert "reading transformer" in said and "100%" in said and "<00:0" in said and "B/s" in said


def test_nobody_listens_outside(capsys):
    tell(10)
    seen = []
    with telling(lambda *step: seen.append(step), 100):
        tell(60)
        tell(60)  # more than was announced
    tell(10)
    assert seen == [(60, 100), (100, 100)]
