"""`helios bench speed`: a table of whatever machine it is, without weights; on a CPU in small."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import compiled, counting, shapes, speed
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import bench_speed, bench_together, hollow
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig

TINY = ["--width", "64", "--height", "64", "--layers", "1", "--threads", "1"]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_a_row_per_number_format_diffusers_and_the_bound(capsys, monkeypatch):
    monkeypatch.setattr(compiled, "use", lambda model: None)  # takes a minute
    assert main(["bench", "speed", *TINY, "--weight-dtype", "fp32", "--weight-dtype", "int8"]) == 0
    said = capsys.readouterr().out
    head, *found = rows(said)
    names = [row[:2] for row in found]
    assert head[0] == "weights" and names[:3] == [["fp32", "none"], ["int8", "none"], ["fp32", "none"]]
    assert names[-1] == ["bound, fp32", ""] and re.search(r"counted [\d.]+ TFLOP, [\d.]+ GB a chunk", said)
    assert "Reduced for a CPU" in said and "1 of its blocks" in said
    for row in found:
        seconds = [float(cell.removesuffix(" s")) for cell in row[3:8]]
        assert seconds[4] == pytest.approx(2 * sum(seconds[:3]) + seconds[3], rel=0.02)
        assert float(row[8]) == pytest.approx(33 / seconds[4], rel=0.02)


def test_no_row_begins_after_its_time_but_the_first(capsys, monkeypatch):
    monkeypatch.setattr(bench_speed.Bench, "bound", lambda *args: None)
    options = ["--weight-dtype", "fp32", "--weight-dtype", "bf16", "--minutes", "1e-9"]
    assert main(["bench", "speed", *TINY, *options]) == 0
    said = capsys.readouterr().out
    assert len(rows(said)) == 2 and "Left out for time (--minutes): bf16 (offload none, compile auto), fp32" in said


REFUSED = [(["--width", "64"], "go together"), (["--minutes", "-1"], "--minutes"), (["--layers", "0"], "--layers must")]
REFUSED += [(["--width", "0", "--height", "0"], "--width must be at least 1")]


@pytest.mark.parametrize("options, wanted", REFUSED)
def test_what_cannot_be_is_refused(options, wanted, capsys):
    assert main(["bench", "speed", *options]) == 2
    assert wanted in capsys.readouterr().err


def test_a_hollow_checkpoint_loads_as_any_and_takes_random_weights(tmp_path):
    config = TransformerConfig(num_attention_heads=1, ffn_dim=64, num_layers=1, text_dim=512)
    folder = hollow.checkpoint(tmp_path / "a", config, VAEConfig(base_dim=4), shapes, text=bench_speed.SMALL_TEXT)
    for dtype in ("bf16", "fp8_e4m3fn", "int8", "int4"):
        helios = load(folder, weight_dtype=dtype)
        for network in (helios.parts.transformer, helios.parts.vae):
            assert speed.randomise(network)
            weights = [t for t in network.parameters() if t.ndim > 1]
            assert all(t.float().abs().max() > 0 for t in weights)
        history = helios.history(64, 64)
        text = np.full((1, 512, 512), 0.01, np.float32)
        *_, step = helios.sample(history, text, seed=0, steps=(1, 1, 1), cfg=1)
        assert bool(torch.isfinite(step.latent).all()) and helios.decode(step.latent).std() > 0


def test_weights_that_the_host_has_no_room_for_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(speed, "host_free", lambda: 10)
    layer = torch.nn.Linear(4, 4)
    before = layer.weight.clone()
    assert not speed.randomise(layer) and torch.equal(layer.weight, before)


def test_the_count_of_a_layer_is_its_products():
    x, layer = torch.randn(3, 8), torch.nn.Linear(8, 5)
    with torch.inference_mode(), counting.Counting() as counted:
        layer(x).relu_()
    assert counted.work.flops == {"products": 2 * 3 * 8 * 5}
    assert counted.work.moved == {"products": 4 * (3 * 8 + 5 + 5 * 8 + 3 * 5), "other": 2 * 4 * 3 * 5}
    twice = counted.work.plus(counted.work)
    assert twice.flops["products"] == 2 * 3 * 8 * 5 * 2 and twice.calls["other"] == 2
    assert twice.seconds(1, 1e9) == pytest.approx(480)


def test_the_published_step_is_counted_in_seconds():
    """The three stages of 640x384: 411 TFLOP of products and 125 of attention."""
    then = time.monotonic()
    found = speed.count_steps(ModelConfig(), 640, 384, torch.bfloat16)
    products, attention = (sum(work.flops[kind] for work in found) / 1e12 for kind in ("products", "attention"))
    assert products == pytest.approx(410.6, rel=0.01) and attention == pytest.approx(125.4, rel=0.01)
    assert time.monotonic() - then < 120


def test_rows_of_several_gpus_stand_in_the_table_of_one(tmp_path):
    path = os.pathsep.join([str(Path(pack.__file__).parents[1]), *sys.path])
    line = [*TINY, "--weight-dtype", "fp32", "--minutes", "1e-9", "--no-diffusers", "--gpus"]
    command = [sys.executable, "-m", "helios_video.helios_core.cli", "bench", "speed", *line]
    own = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}, "capture_output": True, "text": True}
    run = subprocess.run([*command, "2"], timeout=240, **own)
    assert run.returncode == 0, run.stderr
    _, one, two, bound = rows(run.stdout)
    assert one[0] == "fp32" and two[0] == "fp32, 2 GPUs" and bound[0] == "bound, fp32"
    assert all(float(cell.removesuffix(" s")) > 0 for cell in two[3:8])


@pytest.mark.parametrize("given", [["--gpus", "0"], ["--gpus", "2", "--backend", "mlx"]])
def test_gpus_that_cannot_be_are_refused(given, capsys, monkeypatch):
    monkeypatch.setattr(bench_together, "choose", lambda name: name)
    assert main(["bench", "speed", *TINY[:-2], *given]) == 2
    assert "--gpus" in capsys.readouterr().err
