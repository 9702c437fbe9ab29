"""The estimate beside a trace of the real networks on fake CUDA tensors: two layers of the published width.

Forty layers: tests/benchmarks/estimate.py, which runs here in a process of its own. Named: within ten per cent.
"""

from __future__ import annotations

import pytest
from support.scripts import FAKE_CUDA, FOLDER, found_by

SIZES = ("640x384", "768x448")
MODES, DTYPES = ("none", "blocks", "sequential"), ("bf16", "fp16", "fp32", "fp8_e4m3fn", "int8", "int4")
pytestmark = [pytest.mark.slow, *FAKE_CUDA]


@pytest.fixture(scope="module")
def rows():
    sizes = [word for size in SIZES for word in ("--size", *size.split("x"))]
    return found_by(str(FOLDER / "estimate.py"), "--layers", "2", "--json", *sizes)


def check(rows, wanted: int, **about):
    """Each of the rows of that kind, of which there must be so many, within ten per cent."""
    found = [row for row in rows if all(row[name] == value for name, value in about.items())]
    assert len(found) == wanted
    assert not [row for row in found if not 0.9 <= row["ratio"] <= 1.1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_sampling_takes_what_is_estimated(rows, mode, dtype, size):
    check(rows, 1, mode=mode, weights=dtype, size=size, moment="sample", batch=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantising_takes_what_is_estimated(rows, dtype):
    check(rows, 1, mode="sequential", weights=dtype, size="256x256")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", ["whole", 32, 24, 16])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_decoding_takes_what_is_estimated(rows, dtype, tile, size):
    alone = [row for row in rows if row["weights"] == "int4" and row["mode"] == "none" and row["moment"] == "decode"]
    check(alone, 2 if (dtype, tile, size) == ("fp32", "whole", SIZES[0]) else 1, vae=dtype, tile=tile, size=size)


@pytest.mark.parametrize("mode", MODES)
def test_decoding_beside_what_stands_takes_what_is_estimated(rows, mode):
    check([row for row in rows if row["size"] == SIZES[0]], 2 + 8 * (mode == "none"), mode=mode, moment="decode")


def test_the_text_encoder_and_a_batch_take_what_is_estimated(rows):
    check(rows, 1, moment="encode")
    check(rows, 1, batch=2)
