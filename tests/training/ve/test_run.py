"""helios train ve: collapsed posteriors, what learns, resuming, and the file that comes out."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands.train_ve import VESettings
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.join.video import write_video
from helios_video.helios_core.pipeline import TINY
from helios_video.helios_core.training.crops import Crops
from helios_video.helios_core.training.ve import run as ve_run
from helios_video.helios_core.training.ve import terms
from PIL import Image

SMALL = replace(VESettings(), size=16, batch=2, steps=20, base_dim=4, weight=0.01, lr=1e-3, log_every=2, decay=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        picture = scenes.draw(scenes.random_scene(np.random.default_rng(i)), 1)[0]
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def collapsed(settings, path=TINY):
    """helios-tiny's VAE with sigma^2 = 1e-8 everywhere."""
    vae = ve_run.open_vae(path, settings)
    with torch.no_grad():
        vae.quant_conv.weight[16:] = 0
        vae.quant_conv.bias[16:] = math.log(1e-8)
    return vae


def log_of(folder):
    with (folder / "ve.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert all(math.isfinite(v) for row in rows for v in row.values())
    return rows


def test_a_collapsed_posterior_goes_to_its_balance_and_stays(data, tmp_path):
    vae, crops = collapsed(SMALL), Crops.below(data, size=16)
    before = ve_run.look(vae, crops, SMALL)
    assert float(before.sigma.max()) == pytest.approx(1e-4, rel=1e-3)
    ve_run.to_balance(vae, crops, before, ve_run.make_term(SMALL))
    wanted = np.log(terms.equilibrium(before.sensitivity, ve_run.make_term(SMALL)) ** 2).mean()
    ve_run.train(vae, crops, SMALL, tmp_path, tuning=True)
    found = [row["log_variance"] for row in log_of(tmp_path)]
    assert all(abs(value - wanted) < 0.3 for value in found), (wanted, found)
    after = ve_run.look(vae, crops, SMALL)
    assert after.psnr[0] > before.psnr[0] - 1 and float(after.snr.mean()) < float(before.snr.mean()) - 30


def test_a_collapsed_posterior_rises_without_a_swing(data, tmp_path):
    settings = replace(SMALL, start="own", steps=30, log_every=5)
    vae, crops = collapsed(settings), Crops.below(data, size=16)
    before = ve_run.look(vae, crops, settings)
    ve_run.train(vae, crops, settings, tmp_path, tuning=True)
    found = [row["log_variance"] for row in log_of(tmp_path)]
    assert found[0] < -18.3 and found[-1] > found[0] + 0.1 and all(b > a - 0.01 for a, b in zip(found, found[1:]))
    assert ve_run.look(vae, crops, settings).psnr[0] > before.psnr[0] - 1


def test_the_bare_term_on_a_collapsed_posterior_is_refused(data):
    found = ve_run.look(collapsed(SMALL), Crops.below(data, size=16), SMALL)
    with pytest.raises(ValueError, match="down to 0.0001; with --delta 0"):
        ve_run.check_pull(found, replace(SMALL, start="own", delta=0.0))
    for other in ({"start": "balance"}, {"delta": 1e-4}, {"term": "kl"}):
        ve_run.check_pull(found, replace(SMALL, **{"start": "own", "delta": 0.0, **other}))


def learning(vae):
    return {name for name, p in vae.named_parameters() if p.requires_grad}


def test_what_learns_is_what_was_asked_for_and_takes_part():
    vae = ve_run.open_vae(None, SMALL)
    ve_run.choose_parts(vae, decoder=True, images=False)
    assert learning(vae) == {name for name, _ in vae.named_parameters()}
    ve_run.choose_parts(vae, decoder=False, images=True)
    assert {name.split(".")[0] for name in learning(vae)} == {"encoder", "quant_conv"}
    ve_run.choose_parts(vae, decoder=True, images=True)
    x = torch.rand(1, 3, 1, 16, 16)
    vae.decode(vae.encode(x)[0], clamp=False).sum().backward()
    vae.encode(x)[1].sum().backward()
    assert learning(vae) == {name for name, p in vae.named_parameters() if p.grad is not None}


def test_a_stopped_run_goes_on_as_if_it_had_not(data, tmp_path):
    crops, settings = Crops.below(data, size=16), replace(SMALL, steps=6, save_every=3)

    def run(folder, stops):
        vae = ve_run.open_vae(None, settings)
        for stop in stops:
            ve_run.objective = lambda *given, stop=stop: until(objective(*given), stop)
            ve_run.train(vae, crops, settings, tmp_path / folder, tuning=False)
        return vae

    def until(loss, stop):
        def stopped(step):
            if step == stop:
                raise KeyboardInterrupt
            return loss(step)

        return stopped

    objective = ve_run.objective
    try:
        whole = run("a", [99])
        with pytest.raises(KeyboardInterrupt):
            run("b", [5])
        again = run("b", [99])
    finally:
        ve_run.objective = objective
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_the_command_makes_a_vae_that_opens(data, tmp_path, capsys):
    arguments = ["train", "ve", "--data", str(data), "--folder", str(tmp_path / "run"), "--threads", "1"]
    small = ["--size", "16", "--batch", "2", "--steps", "3", "--base-dim", "4", "--log-every", "1"]
    file = tmp_path / "vae.safetensors"
    assert main([*arguments, *small, "-o", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    config = load(vae=file).config.vae
    assert config.base_dim == 4 and config.latents_std != load().config.vae.latents_std
    helios = load(vae=file)
    mean, std = helios.backend.encode(helios.parts.vae, torch.rand(1, 16, 16, 3))
    assert mean.shape == std.shape == (1, 16, 1, 2, 2)
    assert json.loads((tmp_path / "run" / "figures.json").read_text())["after"]["sigma"] > 0
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"before.png", "after.txt", "ve.png", "config.json"}


def test_tuning_the_encoder_keeps_the_decoder_and_the_latents_scale(data, tmp_path):
    arguments = [
        "train",
        "ve",
        "--data",
        str(data),
        "--folder",
        str(tmp_path),
        "--vae",
        "helios-tiny",
        "--threads",
        "1",
    ]
    file = tmp_path / "vae.safetensors"
    assert main([*arguments, "--size", "16", "--batch", "1", "--steps", "2", "-o", str(file)]) == 0
    old, new = load(), load(vae=file)
    assert new.config.vae == old.config.vae
    assert torch.equal(new.parts.vae.decoder.conv_out.weight, old.parts.vae.decoder.conv_out.weight)
    assert not torch.equal(new.parts.vae.quant_conv.weight, old.parts.vae.quant_conv.weight)


def test_videos_train_the_layers_along_time(tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "a.mp4", scenes.draw(scenes.random_scene(np.random.default_rng(0)), 9))
    settings = replace(SMALL, frames=5, steps=1, batch=1, lr=0.01, ema=0.0)
    vae = ve_run.open_vae(None, settings)
    conv = next(m for name, m in vae.encoder.named_modules() if name.endswith("time_conv"))
    before = conv.weight.detach().clone()
    ve_run.train(vae, Crops.below(tmp_path / "data", size=16, frames=5), settings, tmp_path, tuning=False)
    assert not torch.equal(conv.weight, before)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--term", "none"], "wanted one of ve, scale-free, kl, log-variance"),
        (["--weight", "0"], "--weight must be above 0"),
        (["--size", "20"], "wanted a multiple of 8"),
        (["--frames", "4"], "1 [+] a multiple of 4"),
        (["--start", "there"], "wanted balance or own"),
        (["--latents", "mine"], "wanted auto, keep or measure"),
        (["--vae", "nothing.safetensors"], "no file 'nothing.safetensors'"),
        (["--data", "drawn", "--size", "72"], "have 64 pixels to a side"),
        (["--data", "nowhere"], "--data nowhere: not a folder"),
        (["--steps", "0"], "must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(data, tmp_path, capsys, wrong, words):
    arguments = ["train", "ve", "--data", str(data), "--folder", str(tmp_path / "run"), *wrong]
    assert main([*arguments, "-o", str(tmp_path / "vae.safetensors")]) == 2
    assert words.replace("[+]", "+") in capsys.readouterr().err
    assert not (tmp_path / "vae.safetensors").exists()
