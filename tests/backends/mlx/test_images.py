"""Pictures on MLX: fitted as on torch."""

from __future__ import annotations

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.torch import load as torch_load  # noqa: E402


@pytest.mark.parametrize("old", [(40, 64), (64, 40), (100, 37), (8, 8), (64, 64)])
def test_pictures_are_fitted_as_with_torch(old):
    rng = np.random.default_rng(0)
    for frames in (rng.random((2, *old, 3), np.float32), rng.integers(0, 256, (2, *old, 3), np.uint8)):
        got, want = (np.asarray(load.fit(frames, 48, 24)) for load in (mlx_load, torch_load))
        assert got.dtype == np.float32 and got.shape == (2, 24, 48, 3) and np.abs(got - want).max() < 1e-5
    with pytest.raises(ValueError, match="NaN or infinity"):
        mlx_load.fit(np.full((1, 8, 8, 3), np.nan, np.float32), 16, 16)
