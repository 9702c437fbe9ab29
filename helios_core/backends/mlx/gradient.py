"""What a VAE's decoder does with small changes of its latents: products with its Jacobian, for measure/probe.py."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from .arrays import to_array


def own_copy(model):
    """The model itself: here every weight can take part in gradients."""
    return model


def pull_vae(vae, z, draw) -> list[np.ndarray]:
    """J^T r for every r of draw(shape of the frames); J is the derivative of decoding at raw latents z [b c t h w]."""
    z = to_array(z).astype(vae.dtype)
    decode = lambda x: vae.decode(x, clamp=False)  # noqa: E731
    shape, found = decode(z).shape, []  # not evaluated
    for r in draw(tuple(shape)):
        _, (gradient,) = mx.vjp(decode, [z], [to_array(r).astype(vae.dtype)])
        found.append(np.array(gradient.astype(mx.float32)))
    return found
