"""The pack's own VAE as `probe.Codec`, on either backend."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from .probe import Codec


def open_codec(helios, vae=None) -> Codec:
    """Of a pipeline's VAE. vae: the network, where the caller brought it to its device; else the pipeline's."""
    return codec_of(helios.vae if vae is None else vae, helios.backend, helios.backend_name)


def codec_of(vae, backend, name: str) -> Codec:
    """Of a network. backend: the module backends/NAME/load.py."""
    gradient = import_module(f"..backends.{name}.gradient", __package__)
    still = gradient.own_copy(vae)

    def encode(frames):
        with backend.inference():
            return tuple(np.asarray(backend.to_cpu(x)) for x in vae.encode(backend.own(vae, frames)))

    def decode(z):
        with backend.inference():
            return np.asarray(backend.to_cpu(vae.decode(backend.own(vae, z), clamp=False)))

    def pull(z, draw):
        return gradient.pull_vae(still, z, draw)

    return Codec(encode, decode, pull, *vae.factor)
