"""The probe against exact Jacobians, known codecs and its own bounds."""

from __future__ import annotations

from dataclasses import replace

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import gradient
from helios_video.helios_core.backends.torch.vae import WanVAE as Network
from helios_video.helios_core.cli import main
from helios_video.helios_core.config.model import VAEConfig
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.join.video import write_video
from helios_video.helios_core.measure import probe, probe_report
from helios_video.helios_core.measure.codec import open_codec
from helios_video.nodes.sockets import WanVAE
from PIL import Image
from torch import nn


def find(codec, clips, **settings):
    *before, last = probe.measure(codec, clips, probe.ProbeSettings(**settings))
    assert last.done == last.total and [step.done for step in before] == list(range(1, last.total + 1))
    return last.findings


def video(frames=9, size=16, seed=0):
    """Smooth moving pictures, uint8 [f h w 3]."""
    t, y, x = np.mgrid[:frames, :size, :size] / size
    waves = [np.sin(6 * x + 3 * t + k + seed) * np.cos(5 * y - 2 * t * k) for k in range(3)]
    return ((np.stack(waves, -1) + 1) * 127.5).round().astype(np.uint8)


class Small(nn.Module):
    """Latents [b 4 t h w] -> frames [b 3 t 2h 2w], curved, every latent with another reach and strength."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(
            torch.randn(12, 4, 3, 3, 3, generator=generator) * torch.logspace(-1, 1, 4)[:, None, None, None] / 9
        )

    def forward(self, z):
        x = nn.functional.conv3d(torch.tanh(z), self.mix, padding=1)
        b, _, t, h, w = x.shape
        return x.view(b, 3, 2, 2, t, h, w).permute(0, 1, 4, 5, 2, 6, 3).reshape(b, 3, t, 2 * h, 2 * w)


def small_codec(sigma=0.1):
    model = Small()

    def encode(frames):
        small = frames[:, :, :, ::2, ::2]
        mean = np.concatenate([small, small[:, :1] * 2], axis=1)
        return mean, None if sigma is None else np.full_like(mean, 2 * np.log(sigma))

    def decode(z):
        with torch.no_grad():
            return model(torch.from_numpy(z).float()).numpy()

    def pull(z, draw):
        return gradient.pull(model, torch.from_numpy(z), draw)

    return probe.Codec(encode, decode, pull, 1, 2), model


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


def test_the_report_says_where_the_first_decibel_goes():
    codec, _ = small_codec()
    found = replace(find(codec, [video(3)]), psnr=(30.0, 29.8, 29.4, 28.4, 25.0))
    assert probe_report.first_loss(found) == pytest.approx(0.14)
    assert probe_report.first_loss(replace(found, psnr=(30.0, 29.9, 29.9, 29.9, 29.1))) is None
    text = probe_report.table(found, "mine")
    assert text.startswith("mine: the first 1 dB is lost at 14.0 % noise") and "28.40" in text
    assert f"{found.sensitivity[2]:.4g}" in text and f"{found.error[2]:.2g}" in text
    untold = probe_report.table(replace(found, sigma=None, sampled=None))
    assert untold.splitlines()[-2].split()[2:4] == ["-", "-"]
    assert probe_report.rows(found)[1]["balance"] == pytest.approx(found.equilibrium[1])


def test_the_heat_map_is_bright_where_noise_shows_most():
    codec, _ = small_codec()
    found = find(codec, [video(3)])
    field = np.zeros((8, 8))
    field[2, 5] = 1
    colours = np.asarray(probe_report.heat_map(replace(found, pixel_rms=field)))
    assert colours.shape == (16, 16, 3)
    bright = (colours == (253, 231, 37)).all(-1)
    assert bright.sum() == 4 and bright[4:6, 10:12].all() and (colours[0, 0] == (68, 1, 84)).all()
    probe_report.heat_map(replace(found, pixel_rms=np.ones((8, 8))))  # all alike


def test_the_sheet_draws_what_was_found():
    codec, _ = small_codec()
    found = find(codec, [video(3)])
    page = np.asarray(probe_report.picture(found))
    for colour in ((0, 114, 178), (213, 94, 0)):  # both curves, both bars
        assert (page == colour).all(-1).sum() > 300
    probe_report.picture(replace(found, sigma=None, kept=(np.inf,) * 5))


def test_the_node_gives_table_sheet_and_map():
    clip = torch.from_numpy(scenes.draw(scenes.scene("red", "circle", "left", "plain"), 3)).float() / 255
    kind = pack.NODE_CLASS_MAPPINGS["HeliosLatentRobustness"]
    with torch.inference_mode():
        report, plots, heat = kind().probe(WanVAE(load()), clip, frames="separate pictures", probes=2, pieces=2)
    assert heat.shape == (1, 64, 64, 3) and plots.shape[0] == 1 and float(plots.max()) == 1
    assert len(report.splitlines()) == 7 + 16 + 1 and "+-" in report


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(video(1, 24)[0]).save(folder / "a.png")
    write_video(folder / "b.mp4", video(5, 16))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_command_writes_its_report(pictures, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["probe-vae", str(pictures), "-o", str(output), "--probes", "2", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown == (output / "probe.txt").read_text() + f"{output}\n" and shown.startswith(
        "helios-tiny: the first 1 dB"
    )
    assert (output / "probe.csv").read_text().startswith("channel,spread,sigma,snr_db,sensitivity,error,balance\n0,")
    assert Image.open(output / "probe.png").width > 900 and Image.open(output / "heat_map.png").size == (24, 24)


def test_the_command_refuses_what_it_cannot_read(pictures, tmp_path, capsys):
    (pictures / "broken.png").write_bytes(b"\x89PNG nothing")
    for arguments, words in (
        ([tmp_path / "gone.png"], "there is no"),
        ([pictures / "notes.txt"], "is no picture or video"),
        ([pictures / "broken.png"], "is not a picture that can be read"),
        ([pictures / "a.png", "--probes", "1"], "wanted 2 to 200"),
        ([pictures / "a.png", "--model", "nothing"], "no checkpoint named 'nothing'"),
    ):
        assert main(["probe-vae", *map(str, arguments), "-o", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
