"""Embedding: rows without padding, of arrays in any number format."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.text import Embedding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_padding_is_cut_and_comes_back(dtype):
    values = torch.zeros(2, 8, 3, dtype=dtype)
    values[0, :2], values[1, :4] = 1.5, -2.0
    found = Embedding.of(values)
    assert found.rows.shape == (2, 4, 3) and found.shape == (2, 8, 3)
    assert torch.equal(torch.as_tensor(found.padded).float(), values.float())
    assert Embedding.of(found) is found


def test_of_nothing_but_padding_no_row_stays():
    assert Embedding.of(torch.zeros(1, 8, 3)).rows.shape == (1, 0, 3)
