"""The probe against exact Jacobians, known codecs and its own bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import gradient
from helios_video.helios_core.backends.torch.vae import WanVAE as Network
from helios_video.helios_core.config.model import VAEConfig
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.measure import probe
from helios_video.helios_core.measure.codec import open_codec
from support.codec import Small, find, small_codec, video
from torch import nn


def exact(model, z):
    """T [c t h w] of latents [1 c t h w], from the whole Jacobian."""
    jacobian = torch.autograd.functional.jacobian(model, torch.from_numpy(z))
    return (jacobian.flatten(0, 4).double() ** 2).sum(0)[0].numpy()


def test_the_estimate_agrees_with_the_exact_jacobian_within_its_stated_error():
    codec, model = small_codec()
    frames = probe.pieces(video(1), codec, probe.ProbeSettings())
    truth = exact(model, codec.encode(frames[0])[0]).mean(axis=(1, 2, 3))
    off = []
    for seed in range(8):
        found = find(codec, [video(1)], probes=24, seed=seed)
        off.append((found.sensitivity - truth) / found.error)
        np.testing.assert_allclose(found.sensitivity, truth, rtol=0.5)
    off = np.array(off)  # standard errors, 32 of them
    assert (abs(off) < 4).all() and 0.5 < np.sqrt((off**2).mean()) < 1.6, off


def test_more_probes_bring_a_smaller_error():
    codec, _ = small_codec()
    few, many = (find(codec, [video(1)], probes=n) for n in (8, 128))
    assert 2.5 < (few.error / many.error).mean() < 6.5  # 4, but the few tell their spread roughly


def test_every_latent_of_our_own_vae_has_its_exact_sensitivity():
    torch.manual_seed(0)
    vae = Network(VAEConfig(base_dim=4, num_res_blocks=1)).eval().requires_grad_(False)
    z = torch.randn(1, 16, 1, 2, 2)
    truth = exact(lambda x: vae.decode(x, clamp=False), z.numpy())
    draw = lambda shape: [np.sign(np.random.default_rng(k).standard_normal(shape)) for k in range(60)]  # noqa: E731
    found = np.array(gradient.pull_vae(vae, z.numpy(), draw))[:, 0] ** 2
    error = found.std(axis=0, ddof=1) / 60**0.5
    off = (found.mean(axis=0) - truth) / error
    assert (abs(off) < 5).all() and 0.8 < np.sqrt((off**2).mean()) < 1.25
    assert not any(p.requires_grad for p in vae.parameters())


def test_weights_of_inference_mode_are_copied_and_others_are_not():
    with torch.inference_mode():
        model = Small()
        own = gradient.own_copy(model)
        assert own is not model and torch.equal(own.mix, model.mix)
        assert gradient.pull(own, torch.zeros(1, 4, 1, 2, 2), lambda shape: [np.ones(shape)])[0].shape == (
            1,
            4,
            1,
            2,
            2,
        )
    plain = Small()
    assert gradient.own_copy(plain) is not plain and plain.mix.requires_grad
    assert gradient.own_copy(plain.requires_grad_(False)) is plain


def test_tiles_cover_every_latent_once_and_agree_with_the_whole():
    codec, model = small_codec()
    for length, size in ((7, 3), (25, 16), (40, 16), (24, 16), (1, 16), (33, 1)):
        counted = np.zeros(length)
        for whole, inner in probe.windows(length, size):
            counted[whole][inner] += 1
            assert whole.stop - whole.start <= size + 2 * probe.MARGIN
        assert (counted == 1).all()
    picture = [video(1, 64)]
    z = codec.encode(probe.pieces(picture[0], codec, probe.ProbeSettings())[0])[0]
    truth = exact_by_rows(model, z)
    cut, whole = (find(codec, picture, probes=40, tile=tile) for tile in (8, 32))
    for found in (cut, whole):
        assert (abs(found.sensitivity - truth) < 4 * found.error).all()
    wanted = np.corrcoef(cut.pixel_rms.ravel(), whole.pixel_rms.ravel())[0, 1]
    assert cut.pixel_rms.shape == (32, 32) and wanted > 0.3  # the noise of 40 probes is in both


def exact_by_rows(model, z):
    """Mean T per channel: tanh' squared times the kernel's own squares, but for the edges that padding cuts off."""
    gain = (1 - torch.tanh(torch.from_numpy(z)) ** 2) ** 2
    ones = torch.ones(1, 12, *z.shape[2:])
    reach = nn.functional.conv_transpose3d(ones, model.mix**2, padding=1)
    return (gain * reach).detach().numpy().mean(axis=(0, 2, 3, 4))


def test_relative_noise_through_a_linear_codec_costs_what_it_must():
    """Decoder 2 z, encoder x / 2: at noise rho the error is rho times the channel's spread, doubled."""

    def pull(z, draw):
        return [2 * r for r in draw(z.shape)]

    codec = probe.Codec(lambda x: (x / 2, np.full_like(x, 2 * np.log(0.05))), lambda z: 2 * z, pull, 1, 1)
    clip = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((40, 32, 32, 3))  # far from black and white
    found = find(codec, [clip.astype(np.float32)], as_video=False, weight=4.0, pieces=40)
    assert found.psnr[0] > 100 and np.isinf(found.kept[0])
    for rho, decibels in zip(probe.CURVE[1:], found.psnr[1:]):
        assert decibels == pytest.approx(-20 * np.log10(rho * 0.05), abs=0.05)
    assert found.sampled == pytest.approx(-20 * np.log10(0.05), abs=0.05)
    np.testing.assert_allclose(found.sensitivity, 4, rtol=1e-5)
    np.testing.assert_allclose(found.error, 0, atol=1e-6)
    np.testing.assert_allclose(found.equilibrium, 1, rtol=1e-5)
    np.testing.assert_allclose(found.snr, 0, atol=0.1)
    np.testing.assert_allclose(found.pixel_rms, np.sqrt((4 * found.std**2).sum() / 3), rtol=1e-5)


def test_memory_does_not_grow_with_the_clip():
    """A long clip is looked at in as many pieces, each as long, and in as many products, as a short one."""
    codec, _ = small_codec()
    seen = []
    watched = codec._replace(
        decode=lambda z: (seen.append(z.shape), codec.decode(z))[1],
        pull=lambda z, draw: (seen.append(z.shape), codec.pull(z, draw))[1],
    )
    find(watched, [video(30, 16)])
    short, seen[:] = list(seen), []
    find(watched, [video(600, 16)])
    assert seen == short and max(shape[2] for shape in seen) == probe.PIECE


def test_a_vae_that_tells_no_sigma_is_probed_for_the_rest():
    codec, _ = small_codec(sigma=None)
    found = find(codec, [video(3)])
    assert found.sigma is None and found.snr is None and found.sampled is None
    assert np.isfinite(found.psnr).all() and (found.sensitivity > 0).all()


def test_the_same_seed_finds_the_same_and_another_does_not():
    codec, _ = small_codec()
    one, again, other = (find(codec, [video(3)], seed=s) for s in (1, 1, 2))
    assert (one.sensitivity == again.sensitivity).all() and one.psnr == again.psnr
    assert (one.sensitivity != other.sensitivity).any() and one.psnr != other.psnr


def test_pictures_that_cannot_be_probed_are_refused():
    codec, _ = small_codec()
    for clip, words in (
        (np.zeros((16, 16, 3)), r"got \[16, 16, 3\]"),
        (np.zeros((0, 16, 16, 3)), "got"),
        (np.zeros((1, 1, 16, 3)), "16x1: the least this VAE takes is 2"),
        (np.full((1, 16, 16, 3), np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            find(codec, [clip])
    for wrong in ({"probes": 1}, {"weight": 0.0}, {"tile": 0}):
        with pytest.raises(ValueError, match="wanted|must be"):
            probe.ProbeSettings(**wrong)


def test_helios_tiny_on_torch_and_on_mlx_says_the_same():
    pytest.importorskip("mlx.core")
    clip = scenes.draw(scenes.scene("red", "circle", "left", "striped"), 5)[:, 20:36, 20:36]
    one, other = (find(open_codec(load(backend=b)), [clip], probes=2) for b in ("torch", "mlx"))
    np.testing.assert_allclose(one.psnr, other.psnr, atol=0.02)
    np.testing.assert_allclose(one.sensitivity, other.sensitivity, rtol=5e-3)
    np.testing.assert_allclose(one.sigma, other.sigma, rtol=1e-3)
    assert one.kept[1] > one.kept[2] > one.kept[3] > one.kept[4]
