"""How long a video gets, and sizes the checkpoint was not trained at. Named: F1, C8, D15."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import render as command
from helios_video.helios_core.config import model
from helios_video.helios_core.join import video
from helios_video.helios_core.join.clip import Clip, published_length
from helios_video.nodes import clip_video
from helios_video.nodes.concat import ChunkConcat
from support.cli import Fake


@pytest.mark.parametrize("frames", [1, 20, 33, 34, 64, 65, 66, 67, 99, 132, 133, 264, 1000])
def test_f1_the_published_formula_is_that_of_the_published_pipelines(frames):
    """What diffusers' pipelines keep: whole chunks, then (n - 1) // 4 * 4 + 1 frames of them."""
    total = max(1, -(-frames // 33)) * 33
    assert published_length(frames) == (total - 1) // 4 * 4 + 1


def test_f1_the_published_lengths_of_one_to_eight_chunks():
    assert [published_length(33 * k) for k in range(1, 9)] == [33, 65, 97, 129, 165, 197, 229, 261]
    assert published_length(0) == 33 and published_length(10, per_chunk=17) == 17


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load", Fake().load)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("frames", "length", "made"),
    [(34, "exact", 34), (34, "published", 65), (1, "exact", 1), (1, "published", 33), (99, "exact", 99),
     (99, "published", 97), (130, "exact", 130), (130, "published", 129), (165, "published", 165)],
)  # fmt: skip
def test_f1_the_command_line_makes_exactly_what_was_asked(fake, frames, length, made):
    """34 asked is 34, not 65 and not 66; the published length only where it is asked for."""
    assert main(["generate", "--prompt", "a", "--frames", str(frames), "--length", length]) == 0
    assert video.probe("helios.mp4").frames == made


def shades(start, count):
    """Frames that tell their number."""
    values = np.arange(start, start + count, dtype=np.uint8) * 2
    return np.broadcast_to(values[:, None, None, None], (count, 16, 16, 3)).copy()


@pytest.fixture
def clip(tmp_path):
    made = Clip.new(tmp_path / "clip")
    for k in range(2):
        made = made.append(shades(33 * k, 33))
    return made


@pytest.mark.parametrize(
    ("num_frames", "length", "made"),
    [(0, "exact", 99), (70, "exact", 70), (67, "exact", 67), (500, "exact", 99), (0, "published", 97),
     (34, "published", 65), (1, "published", 33)],
)  # fmt: skip
def test_f1_chunk_concat_cuts_to_the_frame(clip, num_frames, length, made):
    import torch

    images = torch.from_numpy(shades(66, 33)).float() / 255
    grown, film = ChunkConcat().append(24, clip=clip, images=images, num_frames=num_frames, length=length)
    assert grown.num_frames == 99, "the clip keeps all"
    shown = video.read_frames(film.get_stream_source())[:, 8, 8, 1]
    assert len(shown) == made and np.abs(shown.astype(int) - 2 * np.arange(made)).max() <= 4


def test_c8_asking_for_fewer_frames_gives_fewer(clip):
    """Not whole chunks of nine latents whatever the length, as ComfyUI's pull request returns."""
    lengths = [video.probe(clip_video.video(clip, n).get_stream_source()).frames for n in (1, 32, 33, 34, 65, 66)]
    assert lengths == [1, 32, 33, 34, 65, 66]


@pytest.fixture
def helios():
    model.warn_size.cache_clear()
    return load()


def test_d15_other_sizes_warn_once(helios, caplog):
    with caplog.at_level(logging.WARNING):
        helios.history(64, 64)
        assert not caplog.records
        for _ in range(2):
            helios.history(128, 64)
        load().history(64, 128)
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in said] == ["size 128x64", "size 64x128"]
    assert all("trained at 64x64 only" in text for text in said)


def test_d15_the_trained_size_turned_on_its_side_warns_too(caplog):
    model.warn_size.cache_clear()
    with caplog.at_level(logging.WARNING):
        model.warn_size(640, 384, 640, 384)
        assert not caplog.records
        model.warn_size(384, 640, 640, 384)
    assert "size 384x640: this checkpoint was trained at 640x384 only" in caplog.text
