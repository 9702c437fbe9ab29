"""The experiments on Variance Expansion: their measures on known answers, and the whole of them in a small size."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from helios_video.helios_core.cli import main
from helios_video.helios_core.study.ve import cut_patches, experiment, law, ring
from helios_video.helios_core.study.ve.text import COLUMNS, NOISY, STEPS, gain, report
from helios_video.helios_core.training.photos import find_photos
from helios_video.helios_core.training.ve import terms, toy
from PIL import Image


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Smooth random pictures, the right fifth darker, so that test patches can be told."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(2):
        coarse = np.random.default_rng(i).integers(100, 255, (10, 12)).astype(np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((120, 80), Image.Resampling.BICUBIC)).copy()
        picture[:, 96:] //= 4
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def test_test_patches_come_from_where_nothing_was_trained(photographs):
    train, test = cut_patches(find_photos(photographs), 400)
    assert train.shape == (400, 144) and test.shape == (40, 144) and train.dtype == np.float32
    assert train.min() > 0.3 > test.max()
    again, _ = cut_patches(find_photos(photographs), 400)
    assert (train == again).all()


def test_pictures_that_cannot_be_split_are_refused(tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="40x40: too small"):
        cut_patches([tmp_path / "small.png"], 400)


def test_sensitivity_of_a_network_is_its_jacobians():
    torch.manual_seed(0)
    vae = toy.PatchVAE(20)
    z = torch.randn(3, toy.LATENTS)
    found = law.sensitivity(vae, z)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda x: vae.decode(x[None])[0], z[i])
        torch.testing.assert_close(found[i], (jacobian**2).sum(0))


class Linear:
    """Latents [n 16] -> themselves, scaled; a posterior where the law wants it, but for `off`."""

    def __init__(self, term, off=1.0):
        self.gains, self.term, self.off = torch.logspace(-1, 1, 16), term, off

    def encode(self, x):
        sigma = terms.equilibrium(self.gains**2, self.term, (x / self.gains).std(0)) * self.off
        return x / self.gains, (2 * sigma.log()).expand_as(x)

    def decode(self, z):
        return z * self.gains


@pytest.mark.parametrize("free", [False, True])
def test_the_law_is_found_where_it_holds(free):
    x, term = torch.rand(300, 16), terms.VarianceExpansion(1e-3, free_of_scale=free)
    held = law.law(Linear(term), x, term)
    assert held == pytest.approx({"slope": 1, "correlation": 1, "ratio": 1}, abs=2e-2)
    assert law.law(Linear(term, off=2.0), x, term)["ratio"] == pytest.approx(2, rel=0.02)


def test_noise_costs_a_linear_codec_what_it_must():
    x = 0.5 + 0.1 * torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    found = law.quality(Linear(terms.VarianceExpansion(1e-6)), x)
    for rho in law.NOISE:
        assert found[f"psnr at {100 * rho:.0f} %"] == pytest.approx(-20 * np.log10(0.1 * rho), abs=0.05)
    assert found["psnr"] > 100


def test_the_frechet_distance_is_that_of_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20000, 16))
    assert experiment.frechet(a, b) < 0.02
    assert experiment.frechet(a + 0.5, b) == pytest.approx(16 * 0.25, rel=0.05)
    assert experiment.frechet(2 * a, b) == pytest.approx(16, rel=0.05)


RING = ("on a mode", "modes", "off the plane", "rebuilt", "sigma")


def test_samples_on_modes_are_counted():
    data = ring.draw(4000, 0)
    found = ring.measure(data)
    assert found["on a mode"] == pytest.approx(1 - np.exp(-(ring.NEAR**2) / 2), abs=0.005)
    assert found["modes"] == 8 and found["off the plane"] < 1e-6
    between = data @ ring.plane().T @ torch.tensor([[0.924, 0.383], [-0.383, 0.924]]) @ ring.plane()
    assert ring.measure(between)["on a mode"] < 0.01
    away = data + 0.5 * torch.linalg.svd(ring.plane(), full_matrices=True)[2][2]
    assert ring.measure(away)["off the plane"] == pytest.approx(0.5, abs=1e-4)


def row(kind, weight, psnr, noisy, seed=0):
    return {"kind": kind, "weight": weight, "seed": seed, "psnr": psnr, NOISY: noisy}


def test_gains_are_at_equal_clean_psnr():
    rows = [row("KL", 1, 20, 10), row("KL", 0.1, 30, 20), row("KL", 1, 20, 0, seed=1), row("VE", 1, 25, 17)]
    rows += [row("VE", 2, 31, 17)]
    found = gain(rows, "VE", 0)
    assert found[1] == pytest.approx(2) and np.isnan(found[2])


def test_the_verdicts_say_no_where_it_is_no():
    def whole(slope, noisy):
        rows = [row("KL", 1, 20, 10), row("KL", 0.1, 30, 20)]
        rows += [row("VE", 1, 25, noisy), row("scale-free", 1, 25, noisy)]
        lawful = {"slope": slope, "correlation": 0.95, "ratio": 1.0}
        more = dict.fromkeys(COLUMNS, 1.0)
        return [{**more, **r, **lawful} for r in rows]

    flow = [{"latents": "VE", "reconstructed": 0.1, **{f"{k} steps": 0.2 for k in STEPS}}]
    modes = [{"latents": name, **dict.fromkeys(RING, 1.0)} for name in ring.TERMS]
    good = report(whole(1.0, 16.0), flow, [1.001], modes)
    assert good.count(": yes.") == 4 and "NO" not in good and "+1.00" in good
    bad = report(whole(0.8, 14.0), flow, [1.02], modes)
    assert bad.count(": NO.") == 4


def test_the_whole_study_in_a_small_size_goes_on_where_it_stopped(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "TERMS", {k: experiment.TERMS[k] for k in CHOSEN})
    monkeypatch.setattr(law, "linear_law", lambda seed: 1.0)  # has a test of its own
    monkeypatch.setattr(law, "POINTS", 16)
    monkeypatch.setattr(ring, "POINTS", 300)
    arguments = ["study", "ve", "--data", str(photographs), "-o", str(tmp_path), "--quick", "--threads", "1"]
    assert main(arguments) == 0
    text = (tmp_path / "ve.md").read_text()
    assert all(f"## V{i}" in text for i in (1, 2, 3, 4)) and text.count("| KL |") == 2
    with Image.open(tmp_path / "ve" / "curves.png") as picture:
        assert picture.width > 800 and picture.height > 500
    rows = list(csv.DictReader((tmp_path / "vaes.csv").open()))
    assert len(rows) == 2 * len(CHOSEN) and all(float(r["psnr"]) > 0 for r in rows)
    capsys.readouterr()
    monkeypatch.setattr(toy.terms, "reconstruction", None)  # what is trained is not trained again
    assert main(arguments) == 0 and (tmp_path / "ve.md").read_text() == text
    assert main([*arguments, "--steps", "2"]) == 1, "other steps are another training"
    assert "TypeError" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least 1 seed"):
        experiment.VarianceSizes(seeds=0)


CHOSEN = ("VE 0.0001", "VE 0.001", "scale-free 0.0001", "KL 0.001", "KL 0.01")
