"""The same control in torch and in MLX: tokens, velocities and a chunk."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.with_control import with_control
from support.control import adapter, latents, sampled

pytest.importorskip("mlx.core")


@pytest.mark.parametrize("policy", ["content", "noise", "match_channel"])
def test_a_controlled_chunk_is_the_same_in_torch_and_mlx(tmp_path, policy):
    found, apart = {}, {}
    for backend in ("torch", "mlx"):
        helios = load(backend=backend, weight_dtype="fp32")
        file = adapter(tmp_path, helios.config.transformer, lora=True)
        under = with_control(helios, file, latents(helios), policy=policy)
        found[backend], apart[backend] = sampled(under), sampled(helios)
    assert abs(found["torch"] - found["mlx"]).max() < 3e-2
    assert abs(found["torch"] - apart["torch"]).max() > 0.3


def test_in_mlx_strength_0_is_bit_equal_to_no_control(tmp_path):
    helios = load(backend="mlx")
    plain, file = sampled(helios), adapter(tmp_path, helios.config.transformer, scale=0)
    assert np.array_equal(sampled(with_control(helios, file, latents(helios))), plain)
    assert np.array_equal(sampled(with_control(helios, file, latents(helios), strength=0)), plain)
