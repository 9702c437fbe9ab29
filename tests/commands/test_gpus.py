"""`helios generate --gpus`: processes on a CPU, over gloo; which of them ends too early, and going on with another
number. Named: G21."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.commands import gpus
from helios_video.helios_core.join import video

LINE = ["generate", "--prompt", "a red circle", "--frames", "90", "--steps", "1,1,1", "--weight-dtype", "fp32"]
GIVEN = {
    "gpus": 2,
    "backend": "torch",
    "compile": "auto",
    "line": [],
    "split_guidance": False,
    "shard": False,
    "offload": "auto",
}
NEAR = 2.0  # mean difference of frames from 0 to 255 that rounding leaves behind the codec


def begin(folder, *line):
    path = os.pathsep.join([str(Path(pack.__file__).parents[1]), *sys.path])
    command = [sys.executable, "-m", "helios_video.helios_core.cli", *line]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": path, "HELIOS_CACHE": "off"}, **pipes)


def ended(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def near(folder, one, other):
    a, b = (video.read_frames(folder / name).astype(np.float32) for name in (one, other))
    return a.shape == b.shape and float(np.abs(a - b).mean()) < NEAR


def test_two_processes_make_the_video_that_one_makes(tmp_path):
    assert ended(begin(tmp_path, *LINE, "-o", "one.mp4"))[0] == 0
    code, out, err = ended(begin(tmp_path, *LINE, "-o", "two.mp4", "--gpus", "2"))
    assert (code, out) == (0, "two.mp4\n"), err
    assert err.count("needed with offload") == 1 and "ended" not in err
    assert near(tmp_path, "one.mp4", "two.mp4")
    assert not list(tmp_path.glob("*_chunks"))


def test_a_number_that_the_heads_do_not_divide_by_is_refused_once(tmp_path):
    code, out, err = ended(begin(tmp_path, *LINE, "--gpus", "3"))
    assert (code, out) == (2, "")
    assert err.strip() == "helios generate: this model has 4 attention heads, which 3 GPUs cannot share; 1, 2, 4 can"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({"gpus": 0}, "--gpus"), ({"backend": "mlx"}, "backend torch"), ({"compile": "on"}, "--compile on")]
    + [({"shard": True, "gpus": 1}, "--shard shares"), ({"shard": True, "offload": "none"}, "--offload none")]
    + [({"split_guidance": True, "gpus": count}, "--split-guidance halves") for count in (None, 3)],
)
def test_what_cannot_be_is_refused_before_anything_starts(given, wanted, monkeypatch):
    monkeypatch.setattr(gpus, "start", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(gpus, "choose", lambda name: name)
    with pytest.raises(ValueError, match=wanted):
        gpus.several(Namespace(**{**GIVEN, **given}), None)


def test_one_gpu_is_a_run_like_any(monkeypatch):
    monkeypatch.setattr(gpus, "start", lambda *_: pytest.fail("started"))
    assert gpus.several(Namespace(**{**GIVEN, "gpus": 1}), lambda args: 7) == 7


def ranks_of(launcher: int) -> dict[str, int]:
    """RANK -> process of those that a launcher has started."""
    found = {}
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        own = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found |= {word[5:].decode(): int(pid) for word in own if word.startswith(b"RANK=")}
    return found


def until(true, seconds=120.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("who", ["1", "launcher"])
def test_a_process_that_dies_is_named_and_the_run_goes_on_with_another_number(tmp_path, who):
    line = [*LINE[:4], "330", *LINE[5:], "-o", "out.mp4"]
    run = begin(tmp_path, *line, "--gpus", "2")
    until(lambda: len(list(tmp_path.glob("out_chunks/chunk_*.mp4"))) > 2)
    ranks = ranks_of(run.pid)
    os.kill({**ranks, "launcher": run.pid}[who], signal.SIGKILL)
    code, _, err = ended(run)
    assert code not in (0, 2)
    if who == "1":
        assert "process 1 of 2 was killed by SIGKILL" in err and "finished chunks are in" in err
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks.values()))
    code, _, err = ended(begin(tmp_path, *line, "--gpus", "4"))
    assert code == 0 and "going on in" in err, err
    assert ended(begin(tmp_path, *line[:-1], "whole.mp4"))[0] == 0
    assert near(tmp_path, "out.mp4", "whole.mp4")


@pytest.mark.slow
def test_shared_weights_and_halves_make_the_video_that_one_makes(tmp_path):
    line = [*LINE, "--cfg", "2"]
    assert ended(begin(tmp_path, *line, "-o", "one.mp4"))[0] == 0
    code, _, err = ended(begin(tmp_path, *line, "-o", "two.mp4", "--gpus", "2", "--shard", "--split-guidance"))
    assert code == 0 and err.count("each GPU holds 1/2 of the transformer's blocks") == 1, err
    assert near(tmp_path, "one.mp4", "two.mp4")


@pytest.mark.slow
def test_ctrl_c_ends_all_in_good_order(tmp_path):
    run = begin(tmp_path, *LINE[:4], "330", *LINE[5:], "-o", "out.mp4", "--gpus", "2")
    until(lambda: len(list(tmp_path.glob("out_chunks/chunk_*.mp4"))) > 2)
    run.send_signal(signal.SIGINT)
    code, _, err = ended(run)
    assert code == 130 and err.count("stopped") == 1 and "go on with: helios resume" in err, err
    assert ended(begin(tmp_path, "resume", "out_chunks"))[0] == 0
    assert (tmp_path / "out.mp4").is_file()
