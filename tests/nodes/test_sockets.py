"""The VAE socket speaks ComfyUI's interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.nodes import sockets


def test_the_vae_speaks_comfyuis_interface(fake_helios):
    vae = sockets.VAESocket(fake_helios)
    z = torch.linspace(-1, 1, 9).view(1, 1, 9, 1, 1).expand(1, 16, 9, 4, 4)
    frames = vae.decode(z)
    assert frames.shape == (1, 33, 32, 32, 3) and frames.dtype == torch.float32
    assert (float(frames.min()), float(frames.max())) == (0.0, 1.0)
    assert torch.equal(frames, vae.decode_tiled(z, tile_x=8, tile_y=16, overlap=2, tile_t=16, overlap_t=2))
    assert fake_helios.vae.tiles == ((16, 8), 2)
    blocks = np.concatenate(list(vae.blocks(z)))
    assert blocks.dtype == np.uint8 and np.abs(blocks / 255 - frames[0].numpy()).max() < 0.003
    assert (vae.latent_channels, vae.spacial_compression_encode(), vae.spacial_compression_decode()) == (16, 8, 8)
    assert vae.temporal_compression_decode() == 4


def test_the_host_makes_room_for_a_whole_batch(fake_helios, monkeypatch):
    vae, asked = sockets.VAESocket(fake_helios), []
    monkeypatch.setattr(fake_helios, "ready", lambda name, *size: asked.append(size) or fake_helios.vae)
    z = torch.zeros(2, 16, 1, 2, 4)
    vae.decode(z)
    vae.decode_tiled(z, tile_x=4, tile_y=2)
    vae.encode(torch.zeros(2, 1, 16, 32, 3))
    assert asked == [(32, 16, 2)] * 3


def test_the_vae_crops_as_comfyuis_does(fake_helios):
    vae = sockets.VAESocket(fake_helios)
    assert vae.encode(torch.rand(6, 20, 34, 3)).shape == (1, 16, 2, 2, 4)
    assert vae.encode_tiled(torch.rand(5, 16, 32, 4), tile_x=512, tile_y=512, overlap=64).shape == (1, 16, 2, 2, 4)
    assert vae.encode_tiled(torch.rand(5, 16, 32, 3), not_video=True).shape == (5, 16, 1, 2, 4)
    with pytest.raises(ValueError, match="too small"):
        vae.encode(torch.rand(1, 4, 4, 3))
