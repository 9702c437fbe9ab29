"""Every mode on fake CUDA tensors, two layers of the published width: no fault of device or type, no wait of the host
in a step, and FLOPs, bytes and peak no higher than those on record.

The runs, and how the record is written anew: tests/benchmarks/counted.py. It runs here in a process of its own.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from support.scripts import FAKE_CUDA, FOLDER, found_by

SCRIPT = FOLDER / "counted.py"
RECORD = json.loads(SCRIPT.with_suffix(".json").read_text())
ROOM = 1.02
TORCH = re.match(r"\d+\.\d+", torch.__version__)[0]
pytestmark = FAKE_CUDA


@pytest.fixture(scope="module")
def found():
    return found_by(str(SCRIPT), "--json")


@pytest.mark.parametrize("mode", RECORD["modes"])
def test_a_mode_runs_and_waits_for_the_device_at_most_four_times_a_chunk(found, mode):
    """A mode that cannot run says why instead of what it cost."""
    assert "error" not in found[mode], found[mode]["error"]
    assert len(found[mode]["chunk"]["waits"]) <= 4


@pytest.mark.parametrize("mode", [name for name in RECORD["modes"] if not name.startswith("decode")])
def test_a_step_waits_for_nothing(found, mode):
    assert found[mode]["more"]["waits"] == 0, found[mode]["chunk"]["waits"]


@pytest.mark.parametrize("mode", RECORD["modes"])
def test_a_chunk_costs_no_more_than_on_record(found, mode):
    """Two per cent of room. Less is fine: write the record anew, so that it stays so."""
    if TORCH != RECORD["torch"]:
        pytest.skip(f"torch {TORCH}: the record is of {RECORD['torch']}, which takes operations apart in its own way")
    for what, most in RECORD["modes"][mode].items():
        assert found[mode]["total"][what] <= ROOM * most, what


def test_modes_multiply_alike(found):
    """What streams, is quantised, starts from pictures or drifts computes the same; guidance twice that."""
    flops = {name: sum(mode["chunk"]["TFLOP"].values()) for name, mode in found.items()}
    for name in ("i2v", "v2v", "streamed", "streamed, one stays", "int8", "int4", "drift, corrupt", "sequential"):
        assert flops[name] == pytest.approx(flops["t2v"], rel=1e-6), name
    assert flops["cfg"] == pytest.approx(2 * flops["t2v"], rel=0.01)


def test_guidance_streams_no_more_than_one_branch(found):
    streamed, guided, stays = (
        found[name]["chunk"]["GB"]["host"] for name in ("streamed", "streamed, cfg", "streamed, one stays")
    )
    assert guided == pytest.approx(streamed, rel=0.01)
    assert stays == pytest.approx(streamed / 2, rel=0.01)
