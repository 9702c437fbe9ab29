"""The script that a Mac user runs for a table, on this machine and on small random weights."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlx.core", reason="mlx is not installed")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "mac.py"


def test_the_table_has_every_stage_and_the_decode(monkeypatch, capsys):
    sizes = {"layers": 1, "heads": 1, "ffn": 128, "base-dim": 4, "chunks": 1}
    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--steps", "1", "2", "1", "--weight-dtype", "int4"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    out = capsys.readouterr().out
    assert "mlx" in out.splitlines()[0] and "random weights, weight dtype int4" in out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert [row[:3] for row in rows[1:]] == [
        ["stage 1", "9x2x2", "1"],
        ["stage 2", "9x4x4", "2"],
        ["stage 3", "9x8x8", "1"],
        ["chunk", "64x64", "4"],
        ["decode", "33x64x64", "1"],
    ]
    numbers = [row[3:] for row in rows[1:]]
    assert all(re.fullmatch(r"[\d.e+-]+", cell) for row in numbers for cell in row if cell)
    # history: 1 + 1 frames of 4x4, 2 and 16 at a half and a quarter of it; with stage 1's 9 frames of 1x1
    seconds, speed, _ = map(float, numbers[0])
    assert seconds * speed == pytest.approx(2 * 16 + 4 + 4 + 9, rel=0.02)
