"""Starting from an image, a video or latents: windows, anchors, noise, sizes, draws and errors.

Named: C4, C7, C8, C9, D4, FD1. Parity with diffusers is in test_starts_parity.py.
"""

import numpy as np
import pytest
import torch
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.noise import Noise
from support.reference import HEIGHT, WIDTH, build, error, run_ours
from support.starting import CASES, DRAWN, Sequence, draw

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

OURS = dict(steps=(1, 1, 1), boost_first_chunk=False)


@pytest.fixture(scope="module")
def helios(tmp_path_factory):
    return build("distilled", tmp_path_factory.mktemp("distilled"))[0]


def start_history(kind, frames, model, **options):
    return model.history(WIDTH, HEIGHT, **{kind: frames}, **options)


@pytest.mark.parametrize("kind", CASES)
def test_c7_no_noise_and_the_mean(helios, kind):
    """posterior mean and sigma 0: no draw at all, and the VAE's mean itself."""
    model, frames = helios, draw(CASES[kind])
    history = start_history(kind, frames, model, posterior="mean", noise_sigma=(0, 0), noise="must not be asked")
    with torch.inference_mode():
        x = (torch.from_numpy(frames).movedim(-1, 0)[None].float() / 255) * 2 - 1
        still = x[:, :, -1:].expand(-1, -1, 33, -1, -1) if kind == "image" else x[:, :, -33:]
        first, last = (model.normalise(model.parts.vae.encode(part)[0]) for part in (x[:, :, :1], still))
    assert torch.allclose(history.anchor, first, atol=1e-6)
    assert torch.allclose(history.window[:, :, -1:], last[:, :, -1:], atol=1e-6)
    sampled = start_history(kind, frames, model, noise_sigma=(0, 0))
    assert not torch.equal(sampled.anchor, history.anchor)


def test_c4_what_an_image_does_not_fill_is_exactly_zero(helios):
    """Not the VAE's -mean / std: zeros mean "no history" in the model's own space."""
    history = helios.history(WIDTH, HEIGHT, image=draw(1))
    assert (history.window[:, :, :-1] == 0).all() and (history.window[:, :, -1:] != 0).all()
    assert helios.normalise(torch.zeros_like(history.window)).abs().min() > 0


def test_c8_the_length_asked_for_is_that_of_the_new_frames(helios):
    """Neither the picture nor the video counts, nor comes back in the result."""
    for start in ({"image": draw(1)}, {"video": draw(70)}):
        done = run_ours(helios, 1, frames=40, steps=(1, 1, 1), history=helios.history(WIDTH, HEIGHT, **start))[1]
        assert [(d.chunk, len(d.frames)) for d in done] == [(0, 33), (1, 33)]


def test_c9_a_video_is_encoded_in_blocks_and_each_alone(helios):
    """Latents 0 to 8 of the window's newest 18 do not depend on the frames of the last block, nor the other way."""
    frames = draw(66)
    plain = dict(posterior="mean", noise_sigma=(0, 0))
    both = helios.history(WIDTH, HEIGHT, video=frames, **plain).window
    last = helios.history(WIDTH, HEIGHT, video=frames[33:], **plain).window
    first = helios.history(WIDTH, HEIGHT, video=frames[:33], **plain).window
    assert torch.equal(both[:, :, -9:], last[:, :, -9:]) and torch.equal(both[:, :, -18:-9], first[:, :, -9:])


def test_the_first_frame_is_the_videos_own_and_old_frames_play_no_part(helios):
    """150 frames: the anchor is frame 0; of the rest only the last 99 matter, so a long file need not be kept."""
    frames = draw(150)
    history = helios.history(WIDTH, HEIGHT, video=frames)
    ends = helios.history(WIDTH, HEIGHT, video=np.concatenate([frames[:1], frames[-99:]]))
    assert torch.equal(history.window, ends.window) and torch.equal(history.anchor, ends.anchor)
    image = helios.history(WIDTH, HEIGHT, image=frames[:1], posterior="mean", noise_sigma=(0, 0))
    video = helios.history(WIDTH, HEIGHT, video=frames, posterior="mean", noise_sigma=(0, 0))
    assert torch.equal(image.anchor, video.anchor)


def test_d4_going_on_from_latents_is_the_uninterrupted_run(helios):
    """Anchor, window, chunk number and hence noise: the third chunk comes out bit for bit, re-anchored or not."""
    for options in ({}, {"skip_first_chunk": True}, {"keep_first_frame": False}):
        history = helios.history(WIDTH, HEIGHT, **options)
        whole = run_ours(helios, 3, history=history, **OURS)[1]
        latent = torch.cat([d.latent for d in whole[:2]], dim=2)
        on = helios.history(WIDTH, HEIGHT, latent=latent, **options)
        assert on.chunk == 2 and torch.equal(run_ours(helios, 1, history=on, **OURS)[1][0].latent, whole[2].latent)


def test_latents_of_a_batch(helios):
    latent = torch.from_numpy(Noise(1).normal((2, 16, 27, HEIGHT // 8, WIDTH // 8), chunk=0))
    history = helios.history(WIDTH, HEIGHT, latent=latent)
    assert history.shape[0] == 2 and history.chunk == 3
    assert torch.equal(history.anchor, latent[:, :, :1]) and torch.equal(history.window, latent[:, :, -19:])


def test_draws_follow_the_seed_and_each_use_has_its_own(helios):
    frames = draw(70)
    for start in ({"image": frames[:1]}, {"video": frames}):
        first, same, other = (helios.history(WIDTH, HEIGHT, seed=seed, **start) for seed in (5, 5, 6))
        assert torch.equal(first.window, same.window) and torch.equal(first.anchor, same.anchor)
        assert not torch.equal(first.window, other.window) and not torch.equal(first.anchor, other.anchor)
    plain = dict(posterior="mean", noise_sigma=(0, 0))
    clean = helios.history(WIDTH, HEIGHT, video=frames, **plain).window[:, :, 1:]
    noisy = helios.history(WIDTH, HEIGHT, video=frames, posterior="mean", noise_sigma=(0.5, 0.5)).window[:, :, 1:]
    noise = noisy * 2 - clean
    assert abs(float(noise.std()) - 1) < 0.05
    assert abs(float((noise[:, :, :9] * noise[:, :, 9:]).mean())) < 0.05, "blocks share their noise"


def test_sigmas_are_drawn_for_every_frame_within_the_range(helios):
    seen, frames = [], draw(70)

    class Watch(Noise):
        def uniform(self, shape, **key):
            seen.append(tuple(shape))
            return super().uniform(shape, **key)

        def normal(self, shape, **key):
            return np.ones(tuple(shape), np.float32)

    plain = helios.history(WIDTH, HEIGHT, video=frames, posterior="mean", noise_sigma=(0, 0)).window[:, :, 1:]
    noisy = helios.history(WIDTH, HEIGHT, video=frames, posterior="mean", noise_sigma=(0.2, 0.3), noise=Watch(0))
    assert seen == [(1,), (9,), (9,)]
    sigma = ((noisy.window[:, :, 1:] - plain) / (1 - plain)).median(dim=4)[0].median(dim=3)[0].median(dim=1)[0][0]
    assert 0.2 <= float(sigma.min()) and float(sigma.max()) <= 0.3 and len(set(sigma.tolist())) == 18


def test_the_anchors_noise_and_the_pasts_may_differ(helios):
    plain = dict(posterior="mean", noise_sigma=(0, 0))
    for start in ({"image": draw(1)}, {"video": draw(33)}):
        clean = helios.history(WIDTH, HEIGHT, **start, **plain)
        split = helios.history(WIDTH, HEIGHT, **start, **plain, video_noise_sigma=(0.4, 0.4))
        assert torch.equal(split.anchor, clean.anchor) and error(split.window, clean.window) > 0.1


def test_fd1_numbers_are_read_as_0_to_1_whatever_lies_in_them(helios):
    """No guess from the least and the greatest: a dark picture stays dark, bytes and floats agree."""
    fit, encode = helios.backend.fit, helios.backend.encode
    floats = torch.from_numpy(draw(1)).float() / 255
    assert torch.equal(fit(draw(1), WIDTH, HEIGHT), floats) and torch.equal(fit(floats, WIDTH, HEIGHT), floats)
    for x in (floats * 0.1, floats * 2 - 1):
        assert torch.equal(fit(x, WIDTH, HEIGHT), x)
        want = helios.parts.vae.encode((x * 2 - 1).movedim(-1, 0)[None])[0]
        assert torch.allclose(encode(helios.parts.vae, x)[0], want, atol=1e-6)


@pytest.mark.parametrize("size", [(200, 64), (128, 100), (37, 51), (640, 384), (64, 32)])
def test_other_sizes_are_cropped_about_the_centre_and_resized(helios, size):
    """A picture whose colours tell where they lie: the middle stays the middle, proportions are kept."""
    w, h = size
    y, x = np.mgrid[:h, :w]
    frames = np.stack([(x + 0.5) / w, (y + 0.5) / h, np.full((h, w), 0.5)], axis=-1)[None].astype(np.float32)
    made = helios.backend.fit(frames, WIDTH, HEIGHT)[0].numpy()
    assert made.shape == (HEIGHT, WIDTH, 3) and made.dtype == np.float32
    assert np.abs(made[:, WIDTH // 2 - 1 : WIDTH // 2 + 1, 0].mean() - 0.5) < 0.02
    assert np.abs(made[HEIGHT // 2 - 1 : HEIGHT // 2 + 1, :, 1].mean() - 0.5) < 0.02
    seen_w, seen_h = (made[:, -1, 0] - made[:, 0, 0]).mean(), (made[-1, :, 1] - made[0, :, 1]).mean()
    kept = min(1, h * 2 / w), min(1, w / 2 / h)
    assert abs(seen_w - kept[0]) < 0.06 and abs(seen_h - kept[1]) < 0.06 and max(kept) == 1


def test_a_video_of_another_size_is_resized_block_by_block(helios, monkeypatch):
    """Never more than one chunk of frames at a time."""
    counts, real = [], helios.backend.fit
    monkeypatch.setattr(helios.backend, "fit", lambda x, *size: counts.append(len(x)) or real(x, *size))
    history = helios.history(WIDTH, HEIGHT, video=scenes.draw(DRAWN, 120))
    assert counts == [1, 33, 33, 33] and torch.isfinite(history.window).all()


def test_a_foreign_encoder_gives_the_mean_only(helios):
    """ComfyUI's VAE answers with the posterior's mean: posterior "sample" then draws nothing."""
    noise = Sequence()
    seen = []

    def encode(frames):
        seen.append(tuple(frames.shape))
        return helios.backend.encode(helios.parts.vae, frames)[0], None

    ours = helios.history(WIDTH, HEIGHT, image=draw(1), posterior="mean", noise=Noise(1))
    theirs = helios.history(WIDTH, HEIGHT, image=draw(1), encode=encode, noise=Noise(1))
    assert torch.equal(ours.window, theirs.window) and seen == [(1, HEIGHT, WIDTH, 3), (33, HEIGHT, WIDTH, 3)]
    helios.history(WIDTH, HEIGHT, image=draw(1), encode=encode, noise=noise)
    assert noise.uses == ["image sigma", "image noise", "still sigma", "still noise"]
    with pytest.raises(ValueError, match=r"vae: it made latents \[1, 4, 1, 8, 16\] of 1 frames.*another model"):
        helios.history(WIDTH, HEIGHT, image=draw(1), encode=lambda x: (torch.zeros(1, 4, 1, 8, 16), None))


class Stopped(Exception):
    pass


def test_stop_between_two_blocks(helios, monkeypatch):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise Stopped

    monkeypatch.setattr(helios.parts.host, "stop", stop)
    with pytest.raises(Stopped):
        helios.history(WIDTH, HEIGHT, video=draw(99))
    assert len(calls) == 3


Z = (HEIGHT // 8, WIDTH // 8)


@pytest.mark.parametrize(
    "start,words",
    [
        (dict(video=draw(32)), "at least 33 frames, one chunk; got 32"),
        (dict(image=draw(2)), "wanted one picture, got 2"),
        (dict(image=draw(1)[0]), r"image: wanted pictures \[frames, height, width, 3\], got \[64, 128, 3\]"),
        (dict(video=np.zeros((40, 64, 64, 1), np.uint8)), "video: wanted pictures"),
        (dict(image=draw(1), video=draw(33)), "starts from one thing; given are image and video"),
        (dict(image=draw(1), posterior="mode"), "posterior 'mode': wanted sample or mean"),
        (dict(image=draw(1), noise_sigma=(0.2, 0.1)), "noise sigma from 0.2 to 0.1"),
        (dict(image=draw(1), noise_sigma=(0, float("nan"))), "noise sigma from 0 to nan"),
        (dict(image=draw(1), seed=-1), "seed -1"),
        (dict(latent=torch.zeros(1, 16, 10, *Z)), "a multiple of 9"),
        (dict(latent=torch.zeros(1, 48, 9, *Z)), r"wanted \[batch, 16, frames, 8, 16\].*got \[1, 48, 9, 8, 16\]"),
        (dict(latent=torch.zeros(1, 16, 9, 16, 8)), r"got \[1, 16, 9, 16, 8\]"),
        (dict(latent=torch.zeros(16, 9, *Z)), "latent: wanted"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(helios, start, words):
    from helios_video.helios_core import load

    fresh = load(helios.checkpoint.path)
    with pytest.raises(ValueError, match=words):
        fresh.history(WIDTH, HEIGHT, **start)
    assert not fresh.parts.loaded.networks


def test_broken_pictures_are_refused(helios):
    with pytest.raises(ValueError, match="NaN or infinity"):
        helios.history(WIDTH, HEIGHT, image=torch.full((1, HEIGHT, WIDTH, 3), float("nan")))
    with pytest.raises(ValueError, match="vae: the latents of the picture hold NaN"):
        bad = torch.full((1, 16, 1, *Z), float("inf"))
        helios.history(WIDTH, HEIGHT, image=draw(1), encode=lambda x: (bad, None))
