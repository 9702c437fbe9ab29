"""The Wan VAE in small, on torch and on MLX with the same random weights."""

from __future__ import annotations

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
torch = pytest.importorskip("torch")
from helios_video.helios_core.backends.mlx.files import channels_last  # noqa: E402
from helios_video.helios_core.backends.mlx.vae import WanVAE  # noqa: E402
from helios_video.helios_core.backends.torch.vae import WanVAE as TorchVAE  # noqa: E402
from helios_video.helios_core.config.model import VAEConfig  # noqa: E402

TOLERANCE = 1e-5
SIZES = {
    "published": {"base_dim": 8},
    "one block": {"base_dim": 8, "num_res_blocks": 1},
    "wide": {"base_dim": 16, "dim_mult": (1, 2), "temperal_downsample": (True,), "num_res_blocks": 1},
    "odd": {"base_dim": 6, "decoder_base_dim": 10, "dim_mult": (1, 2, 3), "temperal_downsample": (True, False)},
    "still": {"base_dim": 8, "dim_mult": (1, 2), "temperal_downsample": (False,), "num_res_blocks": 1},
    "attention": {"base_dim": 8, "attn_scales": (1.0, 0.25), "num_res_blocks": 1},
}


def load(vae: WanVAE, state: dict, dtype=mx.float32) -> WanVAE:
    """Strict: every name, every shape."""
    vae.load_weights([(name, channels_last(mx.array(x.numpy())).astype(dtype)) for name, x in state.items()])
    return vae


def build(name: str, dtype=mx.float32) -> tuple[TorchVAE, WanVAE]:
    """Both VAEs with the same random weights, norms and biases included."""
    torch.manual_seed(0)
    config = VAEConfig(**SIZES[name])
    theirs = TorchVAE(config).eval().requires_grad_(False)
    for key, p in theirs.named_parameters():
        centre, spread = (1.0, 0.3) if "gamma" in key else (0.0, 0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
        p.normal_(centre, spread)
    return theirs, load(WanVAE(config), theirs.state_dict(), dtype)


def random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def latents(*shape: int, seed: int = 1) -> np.ndarray:
    """Random latents of shape b, t, h, w."""
    return random(shape[0], 16, *shape[1:], seed=seed)


def video(*shape: int) -> np.ndarray:
    return np.tanh(random(shape[0], 3, *shape[1:], seed=2))


def error(ours, theirs) -> float:
    ours, theirs = (
        np.array(x.astype(mx.float32)) if isinstance(x, mx.array) else np.asarray(x) for x in (ours, theirs)
    )
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def join(blocks) -> mx.array:
    return mx.concatenate([*blocks], axis=2)
