"""Training a diffusion decoder for a VAE's latents: its clips, its first answer, its table, and helios-tiny's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video.helios_core import cli, load
from helios_video.helios_core.training.crops import to_frames
from helios_video.helios_core.training.ul import decoder, decoder_run, presets, report
from helios_video.helios_core.ul import files
from helios_video.helios_core.unified import Unified

SMALL = replace(
    presets.find("helios-tiny"), decoder_channels=(8, 8, 16), decoder_blocks=(1, 1, 1), head_dim=8,
    prior_channels=(16,), base_channels=(16, 16),
)  # fmt: skip


@pytest.fixture(scope="module")
def helios():
    return load("helios-tiny", backend="torch")


@pytest.fixture(scope="module")
def clips(helios, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return decoder.make_clips(folder, helios, "drawn", count=3, size=64, latents=2)


def test_clips_are_the_vae_s_and_are_made_once(helios, clips, tmp_path):
    assert clips.frames.shape == clips.seen.shape == (3, 5, 64, 64, 3) and clips.latents.shape == (3, 16, 2, 8, 8)
    first = decoder.make_clips(tmp_path, helios, "drawn", count=2, size=64, latents=2)
    assert torch.equal(first.seen, clips.seen[:2])
    again = decoder.make_clips(tmp_path, helios, "drawn", count=2, size=64, latents=2)
    assert torch.equal(again.latents, first.latents) and len(list(tmp_path.iterdir())) == 1
    decoded = helios.decode(clips.latents[:1].float())
    assert np.abs(decoded.astype(int) - clips.seen[0].numpy()).max() <= 2  # the latents are kept in half precision


def test_the_config_is_that_of_the_latents(helios, clips):
    config = decoder.adapt(SMALL, helios, clips)
    assert config.latents_mean == tuple(helios.config.vae.latents_mean) and config.space == "helios-tiny"
    assert config.causal and config.with_pixels and config.stride == (4, 8) and 0.01 < config.pixel_error < 0.3


def test_its_first_answer_is_the_vae_s(helios, clips):
    """Before any training: in one step from noise, almost the VAE's frames; without these, nothing."""
    model = decoder.build(decoder.adapt(SMALL, helios, clips)).eval()
    seen = to_frames(clips.seen.numpy())
    frames = decoder_run.decode_all(model, clips.latents, decoder_run.DecodePlan(), seen)
    assert report.psnr(frames, seen) > 45
    losses = [float(decoder.loss_of(model, clips, 2)(step)["loss"].detach()) for step in range(24)]
    assert 0.3 < np.median(losses) < 3  # about 1: errors are in units of what is left to learn


def test_the_same_draws_again_and_again_are_learned(helios, clips):
    model = decoder.build(decoder.adapt(SMALL, helios, clips))
    loss, seen = decoder.loss_of(model, clips, 2), []
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(16):
        value = loss(1)["loss"]
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append(float(value.detach()))
    assert seen[-1] < 0.97 * seen[0]


def test_figures_of_what_is_right_and_what_is_blurred():
    wanted = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    blurred = torch.nn.functional.avg_pool3d(wanted, (1, 3, 3), 1, (0, 1, 1))
    exact, soft = (decoder_run.figures(x, wanted, 1.0) for x in (wanted + 1e-6, blurred))
    assert exact["psnr"] > 100 and exact["sharpness"] == pytest.approx(1, abs=1e-3) and exact["flicker"] < 0.01
    assert soft["psnr"] < 20 and soft["sharpness"] < 0.5 and soft["ms_per_frame"] == pytest.approx(100)


def test_the_command_makes_a_decoder_that_decodes(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "sizes.json"
    settings.write_text(json.dumps({k: v for k, v in SMALL.to_dict().items() if not k.startswith("latents_")}))
    monkeypatch.setattr(decoder_run, "EVERY", {"1 step": (decoder_run.DecodePlan(), True)})
    output = tmp_path / "d.safetensors"
    options = ["--clips", "2", "--latents", "2", "--steps", "2", "--tested", "1", "--log-every", "1"]
    given = ["--sizes", str(settings), "--folder", str(tmp_path / "run"), "-o", str(output), *options]
    assert cli.main(["train", "ul-decoder", *given]) == 0
    assert "| VAE |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "decoder.json").read_text())
    assert rows["1 step"]["psnr"] == pytest.approx(rows["VAE"]["psnr"], abs=0.5)
    assert (tmp_path / "run" / "decoder-sheet.png").is_file() and files.open_file(output).steps == 2
    model = Unified.load(output, backend="torch")
    frames = model.decode(np.zeros((1, 16, 4, 4, 4), np.float32), clip=2)
    assert frames.shape == (1, 3, 10, 32, 32) and np.isfinite(frames).all()


def test_clips_of_a_folder_are_split(helios, tmp_path):
    from helios_video.helios_core.join import video

    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    video.write_video(tmp_path / "in" / "a.mp4", rng.integers(0, 255, (7, 40, 48, 3), dtype=np.uint8))
    from helios_video.helios_core.commands.train_ul_decoder import ULDecoderSettings

    settings = ULDecoderSettings(data=str(tmp_path / "in"), clips=3, tested=2, size=32, latents=2)
    train, test = decoder_run.find_clips(settings, tmp_path / "out", helios)
    assert train.frames.shape == (3, 5, 32, 32, 3) and test.latents.shape == (2, 16, 2, 4, 4)
