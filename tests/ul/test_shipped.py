"""The Unified Latents models that come with the pack, on pictures that their training never showed."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.training.crops import to_frames
from helios_video.helios_core.training.photos import Photos, find_photos
from helios_video.helios_core.training.ul import decoder
from helios_video.helios_core.ul.decode import DecodePlan
from helios_video.helios_core.unified import SHIPPED, Unified


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(4 / ((a - b) ** 2).mean())


@pytest.fixture(scope="module")
def photographs():
    """[9 3 1 64 64], of the fifth of each that is kept for tests."""
    parts = Photos(find_photos(), 64, test=True).parts
    assert len(parts) == 9
    crops = np.stack([part[40:104, 16:80] for part in parts])
    return (np.moveaxis(crops, -1, 1)[:, :, None] / 127.5 - 1).astype(np.float32)


@pytest.mark.parametrize(("steps", "least"), [(1, 26.0), (4, 28.5)])
def test_photographs_come_back(photographs, steps, least):
    """From four numbers for a square of 4x4 pixels, a twelfth of the picture's."""
    codec = Unified.load("photos")
    latents = codec.encode(photographs)
    assert latents.shape == (9, 4, 1, 16, 16)
    again = codec.decode(latents, DecodePlan(steps), clip=0)
    assert psnr(again, photographs) > least


def test_helios_tiny_s_decoder_adds_to_what_its_vae_shows():
    """Drawn videos of captions that no training saw, 33 frames each, in one step."""
    helios, codec = load(backend="torch"), Unified.load("helios-tiny", backend="torch")
    clips = decoder.run_vae(helios, decoder.held_out(4, 33))
    wanted, seen = (to_frames(clips[name].numpy()).numpy() for name in ("frames", "seen"))
    raw = codec.raw(clips["latents"].float().numpy())
    made = codec.decode(raw, pixels=seen)
    assert made.shape == wanted.shape == (4, 3, 33, 64, 64)
    gains = [psnr(a, c) - psnr(b, c) for a, b, c in zip(made, seen, wanted)]
    assert np.mean(gains) > 1 and min(gains) > 0.3


def test_what_ships_is_small():
    assert sum(file.stat().st_size for file in SHIPPED.values() if file.is_file()) < 8_000_000
