"""The experiments of Unified Latents: that they run, resume, and that the page says what the figures say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helios_video.helios_core import cli
from helios_video.helios_core.study.ul import arms, experiment
from helios_video.helios_core.study.ul.arms import Arm
from helios_video.helios_core.training import data, photos
from PIL import Image

SIZES = experiment.UnifiedSizes(steps=1, seeds=3)
ARMS = [*experiment.sweep(SIZES), *experiment.others()]


@pytest.fixture
def folder(tmp_path):
    """Two smooth pictures, whose right fifths are white."""
    rng = np.random.default_rng(0)
    for name in "ab":
        picture = np.array(Image.fromarray(rng.integers(0, 200, (6, 8, 3), dtype=np.uint8)).resize((100, 60)))
        picture[:, 80:] = 255
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return tmp_path


def made_up(**changes) -> dict:
    """Figures as the paper would have them."""
    found = {}
    for arm in ARMS:
        bits = (
            arm.factor / 30 * (2 if arm.prior == "normal" or arm.noise == 10 else 3 if arm.prior == "detached" else 1)
        )
        found[arm.name] = {
            **{"bits_per_pixel": bits, "psnr": 18 + arm.factor, "decoder_variance": 0.1 / arm.factor, "z_std": 0.5},
            **{"bits_per_latent": 4 * bits, "gaussian_bits_per_latent": 12 * bits, "psnr_one_step": 19 + arm.factor},
            **{"bits_per_pixel_refitted": bits * (0.95 if arm.noise == 5 else 0.7)},
            **{"distance_z0": 0.1, "distance_clean": 0.2, "distance_renoised": 0.11},
        }
    for name, figures in changes.items():
        found[name.replace("__", "-")] |= figures
    return found


def test_photographs_are_split_by_place(folder):
    files = photos.find_photos(folder)
    seen, unseen = (photos.Photos(files, 12, test=test).batch(np.random.default_rng(0), 30) for test in (False, True))
    assert seen.shape == (30, 3, 1, 12, 12) and seen.max() < 0.9
    assert (unseen == 1).all()


def test_photographs_by_name_are_the_parts_for_training(folder, monkeypatch):
    files = photos.find_photos(folder)
    monkeypatch.setattr(photos, "find_photos", lambda: files)
    crops = data.open_data(Path("photos"), size=12).batch(np.random.default_rng(0), 30)
    assert crops.shape == (30, 3, 1, 12, 12) and crops.max() < 0.9
    with pytest.raises(ValueError, match="still pictures"):
        data.open_data(Path("photos"), size=12, frames=5)


def test_a_place_without_photographs_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no photographs in"):
        photos.find_photos(tmp_path)
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install scikit-image"):
        photos.find_photos()
    with pytest.raises(ValueError, match="wide enough for crops of 64"):
        Image.new("RGB", (30, 30)).save(tmp_path / "small.png")
        photos.Photos([tmp_path / "small.png"], 64)


def test_arms_are_told_apart_and_the_middle_one_is_in_the_sweep():
    assert len({arm.name for arm in ARMS}) == len(ARMS) == 9 + 4 + 3 + 1
    assert experiment.sweep(SIZES).count(experiment.MIDDLE) == 1


def test_figures_like_the_paper_s_agree_with_it():
    said = experiment.verdicts(made_up(), SIZES)
    assert len(said) == 9 and all(v.holds for v in said), [v for v in said if not v.holds]


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"factor6__noise5__diffusion__seed1": {"psnr": 1.0}}, "psnr rises with the loss factor"),
        ({"factor1.5__noise5__diffusion__seed2": {"decoder_variance": 0.0}}, "decoder variance falls"),
        ({"factor3__noise5__diffusion__seed1": {"gaussian_bits_per_latent": 0.0}}, "below the Gaussian"),
        ({"factor3__noise10__diffusion__seed0": {"bits_per_pixel": 0.01}}, "lambda0 = 10 costs more"),
        ({"factor3__noise5__diffusion__seed0": {"bits_per_pixel_refitted": 0.0}}, "bound is looser"),
        ({"factor3__noise5__detached__seed0": {"bits_per_pixel": 0.0}}, "does not feel"),
        ({"factor3__noise5__diffusion__seed0": {"distance_z0": 0.3}}, "decoded from z_0"),
    ],
)
def test_figures_unlike_the_paper_s_are_said_to_be_so(changes, claim):
    found = made_up(**changes)
    assert [v.holds for v in experiment.verdicts(found, SIZES) if claim in v.claim] == [False]
    assert f"{claim}" in experiment.text_of(found, SIZES) and "| no |" in experiment.text_of(found, SIZES)


def test_bits_are_compared_at_the_same_error():
    others = [Arm(factor, prior="normal") for factor in experiment.MORE]
    said = experiment.at_equal_psnr(made_up(), "", others)  # factor 3.75: 18 + 3.75 dB, 3.75 / 30 bits, and twice that
    assert said.holds and said.figures == "0.2500 bits per pixel against 0.1250 at 21.75 dB"


def test_errors_that_do_not_overlap_are_not_compared():
    found = made_up()
    for arm in ARMS:
        if arm.prior == "normal" or arm.noise == 10:
            found[arm.name]["psnr"] += 40
    unclear = [v.claim for v in experiment.verdicts(found, SIZES) if v.holds is None]
    assert len(unclear) == 2 and all("at equal PSNR" in claim for claim in unclear)
    assert "| cannot be told | their PSNRs do not overlap" in experiment.text_of(found, SIZES)
    near = made_up(factor3__noise5__diffusion__seed0={"distance_clean": 0.101})
    assert experiment.of_z0(near).holds is None


def test_distance_of_pictures():
    a, b = torch.zeros(4, 3, 1, 8, 8), torch.ones(4, 3, 1, 8, 8)
    assert arms.sliced_distance(a, a) == 0 < arms.sliced_distance(a, b * 0.1) < arms.sliced_distance(a, b)
    moved = torch.cat([b[:2], a[:2]])
    assert arms.sliced_distance(torch.cat([a[:2], b[:2]]), moved) < 1e-6


def test_an_arm_is_measured_once(folder, monkeypatch):
    monkeypatch.setattr(arms, "TESTED", 4)
    monkeypatch.setattr(arms, "BATCH", 2)
    files, arm = photos.find_photos(folder), Arm(3.0, refit=1, base=True)
    figures = arms.run(arm, files, folder / "out", 2)
    assert all(np.isfinite(value) for value in figures.values())
    assert {"bits_per_pixel_refitted", "distance_z0", "distance_clean"} <= set(figures)
    assert len(list(folder.glob(f"out/{arm.name}-2-*/samples.png"))) == 1
    monkeypatch.setattr(arms, "train", None)
    assert arms.run(arm, files, folder / "out", 2) == figures
    with pytest.raises(TypeError):
        arms.run(arm, files, folder / "out", 3)


def test_the_command_writes_the_page(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "measure", lambda arms, *_, **__: {a.name: made_up()[a.name] for a in arms})
    assert cli.main(["study", "ul", "--data", str(folder), "-o", str(tmp_path / "s"), "--steps", "1"]) == 0
    page = (tmp_path / "s" / "ul.md").read_text()
    assert (
        "| yes | in 3 of 3 seeds |" in page
        and "(ul/sweep.png)" in page
        and (tmp_path / "s" / "ul" / "sweep.png").is_file()
    )
    assert capsys.readouterr().out.strip().endswith("ul.md")
