"""Clips through helios-tiny's own VAE: chunk by chunk, once, and the batches that are drawn of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.disk import Store
from helios_video.helios_core.drawn import draw, scenes
from helios_video.helios_core.join import video
from helios_video.helios_core.training.captioned import (
    ClipEncoder,
    ClipSet,
    check_files,
    encode_captions,
    encode_clips,
    find_captioned,
)
from helios_video.helios_core.training.objective import SeededDraws
from PIL import Image


@pytest.fixture(scope="module")
def helios():
    return load("helios-tiny", backend="torch")


@pytest.fixture
def files(tmp_path, helios):
    frames = draw(scenes.scene("red", "circle", "left", "plain"), 70)
    video.write_video(tmp_path / "a.mp4", frames)
    (tmp_path / "a.txt").write_text("a red circle moving left")
    Image.fromarray(frames[0]).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("a red circle")
    return check_files(find_captioned(tmp_path), helios.config.frames_per_chunk)


def test_clips_are_encoded_by_the_chunk_and_found_again(files, helios, tmp_path, monkeypatch):
    encoder = ClipEncoder(helios, 64 * 64, 8, Store(tmp_path / "kept"))
    told = []
    made = encode_clips(encoder, files, lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]
    assert [tuple(c.latents.shape) for c in made] == [(16, 18, 8, 8), (16, 1, 8, 8)]  # 70 frames are two chunks
    assert [tuple(c.stills.shape) for c in made] == [(16, 2, 8, 8), (16, 0, 8, 8)]
    assert "vae" not in helios.parts.loaded.networks
    frames = np.stack(list(video.iter_frames(files[0].file.path)))
    wanted, _ = helios.backend.encode(helios.parts.ready("vae"), helios.backend.fit(frames[33:66], 64, 64))
    torch.testing.assert_close(made[0].latents[None, :, 9:], helios.normalise(wanted), atol=2e-3, rtol=2e-3)
    monkeypatch.setattr(ClipEncoder, "make", None)
    again = encode_clips(encoder, files, lambda *at: None)
    assert all(torch.equal(a.latents, b.latents) and torch.equal(a.stills, b.stills) for a, b in zip(made, again))


def test_batches_are_of_one_size_and_the_same_for_a_seed(files, helios):
    encoder = ClipEncoder(helios, 64 * 64, 8)
    clips = encode_clips(encoder, files, lambda *at: None)
    rows = encode_captions(helios, [one.file for one in files])
    assert set(rows) == {"", "a red circle moving left", "a red circle"}
    made = ClipSet(clips, rows, 512, 9)
    seen = set()
    for seed in range(20):
        one, same = (made.draw(SeededDraws(seed), 3) for _ in range(2))
        assert torch.equal(one.chunk, same.chunk) and torch.equal(one.history.window, same.history.window)
        assert one.chunk.shape == (3, 16, 9 if one.pick[0] == 0 else 1, 8, 8)
        assert one.text.shape[:2] == (3, 512)
        seen |= {(i, int(k), bool(image)) for i, k, image in zip(one.pick, one.place, one.image)}
        for i, k, image in zip(range(3), one.place, one.image):
            if not k and not image:
                assert not one.history.window[i].any() and not one.history.anchor[i].any()
    assert {(0, 0, False), (0, 1, False), (1, 0, False)} <= seen and not {(1, 0, True), (1, 1, False)} & seen


def test_a_clip_that_breaks_off_is_passed_over(files, helios, monkeypatch, capsys):
    def broken(self, one):
        raise ValueError(f"{one.file.path}: damaged after 3 frames")

    monkeypatch.setattr(ClipEncoder, "__call__", broken)
    with pytest.raises(ValueError, match="none of the 2 files"):
        encode_clips(ClipEncoder(helios, 64 * 64, 8), files, lambda *at: None)
    assert "damaged after 3 frames" in capsys.readouterr().err
