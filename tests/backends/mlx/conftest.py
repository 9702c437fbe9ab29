"""The MLX Wan VAE and its torch twin."""

import pytest


@pytest.fixture(scope="module")
def pairs():
    from support.mlx_vae import SIZES, build

    return {name: build(name) for name in SIZES}


@pytest.fixture(scope="module")
def small(pairs):
    return pairs["published"][1]
