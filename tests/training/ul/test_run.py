"""`helios train ul`: both stages, refusals, stopping and going on, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helios_video.helios_core import cli
from helios_video.helios_core.ul import files


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
