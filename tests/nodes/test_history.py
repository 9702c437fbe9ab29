"""HistoryMemory: sizes; an image, a video or latents wired in; what is refused; Stop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helios_video.nodes import sockets
from support.nodes import Stopped, make_history

CLEAN = dict(posterior="mean", noise_sigma_min=0.0, noise_sigma_max=0.0)


def test_history_takes_the_checkpoints_own_size_at_zero(fake_helios):
    memory = make_history(fake_helios)
    assert memory.history.shape == (1, 16, 16, 8) and memory.chunk_frames == 9
    assert not memory.history.window.any()
    assert make_history(fake_helios, width=128, height=64).history.shape == (1, 16, 8, 16)


def test_history_refuses_a_size_the_pyramid_cannot_halve(fake_helios):
    with pytest.raises(ValueError, match="width 64 or 128"):
        make_history(fake_helios, width=96, height=64)


def start(helios, **inputs):
    return make_history(helios, **inputs).history


def pictures(count, height=128, width=64):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def test_an_image_begins_a_video_of_the_checkpoints_size(fake_helios):
    history = start(fake_helios, image=pictures(1, 200, 300))
    assert history.shape == (1, 16, 16, 8) and history.chunk == 0 and history.anchor.shape == (1, 16, 1, 16, 8)
    assert (history.window[:, :, :-1] == 0).all() and (history.window[:, :, -1] != 0).all()


def test_an_images_alpha_is_left_out(fake_helios):
    image = pictures(1)
    clear = torch.cat([image, torch.zeros(1, 128, 64, 1)], dim=3)
    histories = [start(fake_helios, image=x, **CLEAN) for x in (image, clear)]
    assert torch.equal(histories[0].anchor, histories[1].anchor)


def test_seed_sigmas_and_flags_reach_the_core(fake_helios):
    image = pictures(1)
    plain, same, other = (start(fake_helios, image=image, seed=seed).anchor for seed in (1, 1, 2))
    assert torch.equal(plain, same) and not torch.equal(plain, other)
    strong = start(fake_helios, image=image, seed=1, noise_sigma_min=1.0, noise_sigma_max=1.0).anchor
    assert abs(float(strong.std()) - 1) < 0.1
    history = start(fake_helios, video=pictures(40), keep_first_frame=False, skip_first_chunk=True, **CLEAN)
    assert history.anchor is None and history.skip_first_chunk and history.window.shape[2] == 20


def test_latents_come_in_raw_vae_space_and_bring_their_size(fake_helios):
    raw = torch.randn(1, 16, 18, 8, 16)
    history = start(fake_helios, latent={"samples": raw})
    assert history.shape == (1, 16, 8, 16) and history.chunk == 2
    assert torch.allclose(history.window[:, :, -18:], fake_helios.normalise(raw))
    with pytest.raises(ValueError, match=r"wanted \[batch, 16, frames, 16, 16\].*got \[1, 16, 18, 8, 16\]"):
        start(fake_helios, latent={"samples": raw}, height=128)
    with pytest.raises(ValueError, match="latent: wanted a video latent .*another model"):
        start(fake_helios, latent={"samples": raw[:, :4]})


def test_any_vae_on_the_socket_encodes(fake_helios):
    """Open: the model's own. Ours: that one, with its posterior. ComfyUI's: its mean, in frames [f h w 3]."""
    video, seen = pictures(40), []
    ours = sockets.VAESocket(fake_helios)

    def encode(frames):
        seen.append(tuple(frames.shape))
        return ours.encode(frames)

    foreign = SimpleNamespace(encode=encode)
    histories = [start(fake_helios, video=video, vae=vae, **CLEAN) for vae in (None, ours, foreign)]
    assert all(torch.equal(histories[0].window, h.window) for h in histories)
    assert seen == [(1, 128, 64, 3), (33, 128, 64, 3)]
    assert (histories[0].window[:, :, -9:] != 0).all()


def test_another_models_vae_is_refused(fake_helios):
    wrong = SimpleNamespace(encode=lambda frames: torch.zeros(len(frames), 4, 16, 8))
    with pytest.raises(ValueError, match=r"vae: it made latents \[1, 4, 16, 8\] of 1 frames.*leave the input open"):
        start(fake_helios, image=pictures(1), vae=wrong)


@pytest.mark.parametrize(
    "inputs,words",
    [
        (dict(image=pictures(2)), "image: wanted one picture, got 2"),
        (dict(video=pictures(20)), "video: wanted at least 33 frames, one chunk; got 20"),
        (dict(image=pictures(1), video=pictures(33)), "image and video"),
        (dict(image=pictures(1), noise_sigma_min=0.2), "noise sigma from 0.2 to 0.135"),
        (dict(image=pictures(1), width=80, height=128), "width 64 or 128"),
        (dict(latent={"samples": torch.zeros(1, 16, 21, 16, 8)}), "a multiple of 9"),
    ],
)
def test_what_does_not_fit_is_refused(fake_helios, inputs, words):
    with pytest.raises(ValueError, match=words):
        start(fake_helios, **inputs)


def test_stop_is_honoured_between_blocks(fake_helios):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 2:
            raise Stopped

    fake_helios.host.stop = check  # as HeliosLoader gives it
    with pytest.raises(Stopped):
        start(fake_helios, video=pictures(99))
    assert len(calls) == 2
