"""Rotations of the current frames and of the history against diffusers. Named: C6, M3."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_helios import HeliosRotaryPosEmbed
from helios_video.helios_core.backends import rope
from support.transformer import random_history


@pytest.mark.parametrize("grid", [(6, 10), (12, 20), (24, 40), (5, 7), (10, 6)])
def test_m3_rotations_are_those_of_diffusers(grid):
    """History rotations are cosines and sines averaged over blocks, neither averaged angles nor renormalised."""
    dims, theta = (44, 42, 42), 10000.0
    embed = HeliosRotaryPosEmbed(dims, theta)
    parts = random_history(2 * grid[0], 2 * grid[1])

    def oracle(index, factor):
        full = embed(torch.tensor([index]), *grid, "cpu")
        pads = [p for size in full.shape[:1:-1] for p in (0, -size % factor)]
        pooled = F.avg_pool3d(F.pad(full, pads, mode="replicate"), factor) if factor > 1 else full
        cos, sin = pooled[0].flatten(1).T[:, ::2].chunk(2, dim=1)
        return torch.complex(cos, sin).numpy()

    levels = ((parts.long_index, 4), (parts.mid_index, 2), (parts.short_index, 1))
    want = np.concatenate([oracle(index, factor) for index, factor in levels])
    got = rope.history_rotations(parts, *grid, dims, theta)
    assert got.shape == want.shape and np.abs(got - want).max() < 2e-5
    assert np.abs(got[:4]).min() < 0.9
    got = rope.current_rotations(parts.current_index, *grid, dims, theta)
    assert np.abs(got - oracle(parts.current_index, 1)).max() < 2e-5


def test_c6_rotations_are_exact_on_wide_grids():
    """In bfloat16, columns past 256 would share a rotation; the tables are float32 of float64 angles."""
    got = rope.current_rotations((20,), 1, 700, (8, 8, 8), 10000.0)
    assert got.dtype == np.complex64
    angles = np.outer(np.arange(700), 10000.0 ** (-np.arange(0, 8, 2) / 8))
    assert np.abs(got[:, 8:] - np.exp(1j * angles)).max() < 1e-6
