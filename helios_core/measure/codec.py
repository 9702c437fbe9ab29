"""The pack's own VAE as `probe.Codec`, on either backend."""

from __future__ import annotations

import numpy as np

from .probe import Codec


def open_codec(helios, vae=None) -> Codec:
    """Of a pipeline's VAE. vae: the network, where the caller brought it to its device; else the pipeline's."""
    return codec_of(helios.parts.vae if vae is None else vae, helios.backend)


def codec_of(vae, backend) -> Codec:
    """Of a network of that backend."""
    still = backend.own_copy(vae)

    def encode(frames):
        with backend.inference():
            return tuple(np.asarray(backend.to_cpu(x)) for x in vae.encode(backend.to_device(vae, frames)))

    def decode(z):
        with backend.inference():
            return np.asarray(backend.to_cpu(vae.decode(backend.to_device(vae, z), clamp=False)))

    def pull(z, draw):
        return backend.pull_vae(still, z, draw)

    return Codec(encode, decode, pull, *vae.factor)
