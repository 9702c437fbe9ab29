"""Training Unified Latents: the terms of the loss, the data, stopping and going on, both stages from the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helios_video.helios_core import cli
from helios_video.helios_core.backends.torch.ul import UL, load_ul
from helios_video.helios_core.join import video
from helios_video.helios_core.training.crops import Crops
from helios_video.helios_core.training.files import save_ul
from helios_video.helios_core.training.ul import presets, report, stages
from helios_video.helios_core.ul import files
from helios_video.helios_core.ul.config import ULConfig
from PIL import Image
from support.ul import IMAGE, SMALL, VIDEO, build

SIZES = {**SMALL, "logsnr_x": (-6.0, 8.0), "dropout": 0.1}


class Colours:
    """Frames of one colour each, as a data set."""

    def batch(self, rng, count):
        return torch.from_numpy(rng.uniform(-1, 1, (count, 3, 1, 1, 1)).astype(np.float32)).expand(-1, -1, 1, 16, 16)


@pytest.fixture
def photos(tmp_path):
    """Three images, one of them smaller than a crop, one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 50)), ("b.jpg", (33, 24)), ("more/c.png", (9, 12))):
        smooth = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        smooth.save(folder / name)
    return folder


@pytest.fixture
def sizes(tmp_path):
    file = tmp_path / "sizes.json"
    file.write_text(json.dumps({"latent_channels": 4, "stride": [1, 8], **SIZES}))
    return file


def start(config, parts=("encoder", "prior", "decoder")):
    torch.manual_seed(0)
    model = UL(config, parts)
    stages.initialise(model)
    return model


def test_an_untrained_model_answers_zero_and_passes_what_it_is_given():
    model = start(VIDEO)
    x = torch.randn(1, 3, 8, 16, 16)
    z, level = model.encoder(x), torch.zeros(1)
    assert not model.prior(z, level).any() and not model.decoder(x, z, level, level).any()
    assert z.std() > 0.1


@pytest.mark.parametrize("config", [IMAGE, VIDEO], ids=["image", "video"])
def test_gradients_reach_every_part(config):
    model = build(config, ("encoder", "prior", "decoder")).train().requires_grad_(True)
    data = Colours() if config is IMAGE else Moving()
    stages.stage_one(model, data, stages.Terms(), 10, 4)(9)["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


class Moving:
    def batch(self, rng, count):
        return torch.from_numpy(rng.uniform(-1, 1, (count, 3, 5, 16, 16)).astype(np.float32))


def encoder_pull(prior, even=0.0):
    """The encoder's gradient from the rate alone."""
    model = build(IMAGE).requires_grad_(True)
    terms = stages.Terms(loss_factor=0.0, even=even, prior=prior)
    values = stages.stage_one(model, Colours(), terms, 10, 4)(9)
    values["loss"].backward()
    return float(model.encoder.conv_out.weight.grad.norm()), float(values["bits_per_pixel"].detach())


def test_the_prior_shapes_the_encoder_unless_it_is_detached():
    (whole, bits), (cut, same) = encoder_pull("diffusion"), encoder_pull("detached")
    assert whole > 20 * cut > 0 and bits == pytest.approx(same)


def test_the_even_loss_leaves_the_encoder_alone():
    assert encoder_pull("diffusion", even=0.1)[0] == pytest.approx(encoder_pull("diffusion")[0])


def test_a_normal_prior_costs_the_divergence_of_z0():
    model, draws = build(IMAGE), stages.StepDraws(0)
    z = torch.randn(2, 4, 1, 2, 2)
    cost, felt = stages.rate_terms(model, z, draws, "normal")
    a, s = torch.sigmoid(torch.tensor(5.0)).sqrt(), torch.sigmoid(torch.tensor(-5.0)).sqrt()
    wanted = torch.distributions.kl_divergence(torch.distributions.Normal(a * z, s), torch.distributions.Normal(0.0, 1))
    torch.testing.assert_close(cost, wanted.flatten(1).sum(1), rtol=1e-4, atol=1e-4)
    assert felt is cost


def test_bits_of_many_draws_are_the_training_s_in_the_mean():
    model = build(IMAGE)
    z = torch.randn(2, 4, 1, 4, 4) * 0.5
    several = torch.stack([report.latent_nats(model.prior, z, IMAGE, draws=20, seed=i) for i in range(8)])
    single = torch.stack([stages.rate_terms(model, z, stages.StepDraws(i), "diffusion")[0] for i in range(800)])
    error = 4 * float(single.mean(1).std()) / 800**0.5 + 4 * float(several.mean(1).std()) / 8**0.5
    assert float(several.mean()) == pytest.approx(float(single.mean()), abs=error)
    assert several.std(0).max() < single.std(0).min() / 3


def test_hidden_frames_are_the_first_one_again():
    frames = torch.randn(1, 3, 5, 2, 2)
    held = stages.hold_first(frames, 3)
    assert held.shape[2] == 8 and all(torch.equal(held[:, :, i], frames[:, :, 0]) for i in range(4))


def test_base_samples_carry_the_noise_of_z0():
    """A base that answers for a single point: what it samples is that point, seen at lambda 5."""
    model = build(IMAGE)
    point = torch.randn(1, 4, 1, 4, 4)
    model.base.forward = lambda z, at: (torch.sigmoid(at[0]).sqrt() * z - point) / torch.sigmoid(-at[0]).sqrt()
    for ancestral in (True, False):
        z = report.draw_latents(model, (64, 4, 1, 4, 4), steps=20, ancestral=ancestral)
        spread = (z - torch.sigmoid(torch.tensor(5.0)).sqrt() * point).std()
        assert float(spread) == pytest.approx(0.0818, rel=0.1), ancestral


def test_crops_come_from_every_readable_file(photos, capsys):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (photos / "text.txt").write_text("not looked at")
    crops = Crops.below(photos, size=16)
    batch = crops.batch(np.random.default_rng(0), 40)
    assert batch.shape == (40, 3, 1, 16, 16) and -1 <= batch.min() < batch.max() <= 1
    said = capsys.readouterr().err
    assert said.count("broken.png") == 1 and said.startswith("skipped") and "text.txt" not in said
    assert len({tuple(x.flatten().tolist()) for x in batch}) > 20
    torch.testing.assert_close(crops.batch(np.random.default_rng(0), 40), batch)


def test_videos_are_cropped_in_time_too(tmp_path, capsys):
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3) * 20
    video.write_video(tmp_path / "long.mp4", frames)
    video.write_video(tmp_path / "short.mp4", frames[:3])
    crops = Crops.below(tmp_path, size=16, frames=5)
    batch = crops.batch(np.random.default_rng(0), 12)
    assert batch.shape == (12, 3, 5, 16, 16)
    assert "short.mp4: it has 3 frames" in capsys.readouterr().err
    firsts = ((batch[:, 0, 0, 0, 0] + 1) * 127.5 / 20).round()
    assert len(firsts.unique()) > 3 and (batch.mean((1, 3, 4)).diff(dim=1) > 0.1).all()


@pytest.mark.parametrize(("name", "said"), [("nothing", "not a folder"), ("empty", "holds no images or videos")])
def test_a_folder_without_pictures_is_named(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=said):
        Crops.below(tmp_path / name, size=16)


def test_nothing_but_broken_files_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 files can be read"):
        Crops.below(tmp_path, size=16).draw(np.random.default_rng(0))


def train(*options):
    return cli.main(["train", "ul", *map(str, options)])


def test_both_stages_from_the_command(photos, sizes, tmp_path, capsys):
    common = ["--data", photos, "--size", 16, "--batch", 4, "--log-every", 2, "--folder", tmp_path / "run"]
    codec, base = tmp_path / "codec.safetensors", tmp_path / "base.safetensors"
    assert train("--stage", 1, "--model", sizes, "--steps", 6, "-o", codec, *common) == 0
    assert train("--stage", 2, "--codec", codec, "--steps", 4, "-o", base, *common) == 0
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {f"stage{n}{end}" for n in (1, 2) for end in (".csv", ".png", ".pt", ".json", "-sheet.png")} <= made
    figures = json.loads((tmp_path / "run" / "stage1.json").read_text())
    assert figures["bits_per_latent"] / figures["bits_per_pixel"] == pytest.approx(16)  # 256 pixels, 4 x 2 x 2 numbers
    assert "bits_per_pixel" in capsys.readouterr().out
    assert files.open_file(codec).parts == ("encoder", "prior", "decoder")
    found = files.open_file(base)
    assert found.parts == ("base",) and found.steps == 4 and found.config == files.open_file(codec).config


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stage", 2], "stage 2 needs --codec"),
        (["--stage", 1, "--codec", "x"], "stage 1 takes none"),
        (["--stage", 1, "--size", 20], "multiple of 8 pixels"),
        (["--stage", 1, "--model", "large"], "wanted tiny, tiny-video"),
        (["--stage", 1, "--model", "small-video", "--frames", 4], "1 \\+ a multiple of 4"),
        (["--stage", 1, "--frames", 5], "multiple of 1|holds no videos"),
        (["--stage", 1, "--device", "nowhere"], "torch cannot use it"),
    ],
)
def test_what_cannot_be_trained_is_said_first(photos, tmp_path, capsys, options, said):
    import re

    assert train("--data", photos, "--folder", tmp_path / "run", *options) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list((tmp_path / "run").glob("*.pt"))


COMMAND = [sys.executable, "-m", "helios_video.helios_core.cli", "train", "ul", "--stage", "1"]


def losses(file):
    rows = [row.split(",") for row in file.read_text().splitlines()]
    return {int(row[0]): float(row[2]) for row in rows[1:]}


def test_a_killed_run_goes_on_where_it_was(photos, sizes, tmp_path):
    """kill -9 after the first checkpoint; the log is then that of a run that was never killed."""
    given = ["--data", photos, "--model", sizes, "--size", 16, "--batch", 2, "--steps", 60]
    given = [*map(str, given), "--save-every", "10", "--log-every", "5"]
    run = [*COMMAND, *given, "--folder", tmp_path / "a", "-o", tmp_path / "a.safetensors"]
    log = tmp_path / "a" / "stage1.csv"
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (tmp_path / "a" / "stage1.pt").is_file() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = max(losses(log))
    assert 5 <= reached < 60 and not (tmp_path / "a.safetensors").exists()
    assert train(*run[5:]) == 0
    assert train(*run[5:-4], "--folder", tmp_path / "b", "-o", tmp_path / "b.safetensors") == 0
    a, b = losses(log), losses(tmp_path / "b" / "stage1.csv")
    assert list(a) == list(b) == list(range(5, 61, 5))
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=0.05)


def test_two_processes_train_as_one(photos, sizes, tmp_path):
    """torch's distributed data parallel on two CPU processes: one log, one file, the same weights in both."""
    given = ["--data", photos, "--model", sizes, "--size", 16, "--batch", 2, "--steps", 4, "--log-every", 2]
    given += ["--folder", tmp_path, "-o", tmp_path / "two.safetensors", "--device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *COMMAND[1:]]
    done = subprocess.run([*launch, *map(str, given)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(losses(tmp_path / "stage1.csv")) == [2, 4]
    assert done.stdout.count("step 4 ") == 1


def test_a_file_is_loaded_strictly(tmp_path):
    model, file = build(IMAGE), tmp_path / "x.safetensors"
    save_ul(model, file, steps=3, dtype=torch.float16)
    again = load_ul(files.open_file(file), ("decoder",), device="cpu")
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name].half().float())
    assert again.parts == ("decoder",) and next(again.parameters()).dtype == torch.float32
    del model.decoder.conv_in
    save_ul(model, file, steps=3)
    with pytest.raises(ValueError, match="2 missing: decoder.conv_in.bias, decoder.conv_in.weight"):
        load_ul(files.open_file(file), ("decoder",), device="cpu")


def test_a_file_that_decodes_to_noise_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    save_ul(build(IMAGE, ("decoder",)), file, steps=0)
    with pytest.raises(ValueError, match="never trained"):
        files.open_file(file)
    save_ul(build(IMAGE, ("decoder",)), file, steps=1)
    with pytest.raises(ValueError, match="holds no encoder, only decoder"):
        files.open_file(file).narrow(("encoder",))


def test_another_models_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no Unified Latents model"):
        files.open_file(tmp_path / "x.safetensors")


def test_presets_are_models():
    for name, config in presets.PRESETS.items():
        with torch.device("meta"):
            model = UL(config, ("encoder", "prior", "decoder", "base"))
        assert sum(p.numel() for p in model.parameters()) > 1e5, name
        assert ULConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_training_lowers_the_loss():
    config = ULConfig(latent_channels=4, stride=(1, 8), **{**SIZES, "dropout": 0.0})
    model = start(config)
    loss = stages.stage_one(model, Colours(), stages.Terms(loss_factor=4.0, bias=1.0), 40, 16)
    optimiser, seen = torch.optim.Adam(model.parameters(), 3e-3), []
    for step in range(40):
        values = loss(step)
        values["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append(float(values["loss"].detach()))
    assert sum(seen[-8:]) < 0.85 * sum(seen[:8])


def test_figures_of_a_codec():
    figures = report.measure(build(IMAGE), Colours().batch(np.random.default_rng(1), 2).contiguous())
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["decoder_variance"] > 0
    assert figures["bits_per_latent"] == pytest.approx(16 * figures["bits_per_pixel"])
