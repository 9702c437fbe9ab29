"""Runs that are killed, and the same command again: it makes what it would have made without, frame by frame."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.join import video
from safetensors import safe_open
from support.forked import Commands

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
PROMPT = "a red circle moving left"
WORKFLOW = Path(pack.__file__).parent / "workflows" / "long_video.json"
BATCH = "a red circle\na blue square moving up\n"
FEW = ("--steps", "1,1,1")
SETS = ("--set", "HeliosLoopStart.chunks=3", "--set", "DMDPyramidSample.steps=1,1,1")
LINES = {
    "generate": ("generate", "--prompt", PROMPT, "--frames", 90, "-o", "out.mp4", *FEW),
    "run": ("run", WORKFLOW, *SETS, "--output-dir", "."),
    "batch": ("generate", "--prompts-file", "p.txt", "--frames", 60, "-o", "out.mp4", *FEW),
}


@pytest.fixture(scope="module")
def commands():
    with Commands() as run:
        yield run


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "p.txt").write_text(BATCH)
    return folder


def films(folder):
    """Name -> frames, of all that is there in the end; nothing else is."""
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"p.txt"}
    assert not list(folder.rglob("*_chunks")), names
    return {name: video.read_frames(folder / name) for name in sorted(names)}


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    """Of each line, what it makes without a stop, and its seconds."""
    made = {}
    for name, line in LINES.items():
        folder = fresh(tmp_path_factory.mktemp(name) / "whole")
        ended = commands(line, folder)
        assert ended.code == 0, ended.err
        made[name] = films(folder), ended.seconds
    return made


def killed(commands, whole, folder, name, moments, seed):
    """Kills the line at so many random moments, now and then twice, and lets it finish. How often it went on."""
    frames, seconds = whole[name]
    draws, went_on = random.Random(seed), 0
    while moments:
        fresh(folder)
        for _ in range(draws.choice((1, 1, 2))):
            until = draws.choice(("", '"made"'))  # half of them before a chunk is there, half after
            ended = commands(LINES[name], folder, until=until, after=draws.random() * seconds / (2 if until else 1))
            if through(folder, len(frames)):
                break
        else:
            last = commands(LINES[name], folder)
            assert last.code == 0, last.err
            went_on += "going on in" in last.err
            moments -= 1
        same(films(folder), frames)
        if ended.code == 0:  # it was quicker than the one that was measured
            seconds = min(seconds, ended.seconds)
    return went_on


def through(folder, videos):
    """Whether a killed run had done all that it had to."""
    return not list(folder.rglob("*_chunks")) and len(list(folder.rglob("*.mp4"))) == videos


def same(found, wanted):
    assert list(found) == list(wanted)
    for name in wanted:
        assert np.array_equal(found[name], wanted[name]), name


@pytest.mark.parametrize("name", LINES)
def test_killed_at_three_moments_and_begun_again(commands, whole, tmp_path, name):
    killed(commands, whole, tmp_path / "run", name, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_killed_at_thirty_moments_and_begun_again(commands, whole, tmp_path, name):
    assert killed(commands, whole, tmp_path / "run", name, 30, 2) > 5


@pytest.mark.parametrize(
    ("name", "how"), [("generate", signal.SIGINT), *((name, signal.SIGTERM) for name in LINES)], ids=str
)
def test_what_is_said_goes_on_from_any_folder(commands, whole, tmp_path, name, how):
    folder = fresh(tmp_path / "run")
    ended = commands(LINES[name], folder, until='"made"', how=how)
    assert ended.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[how] and "Traceback" not in ended.err
    assert "finished chunk" in ended.err and ended.err.endswith("stopped\n")
    (line,) = [line for line in ended.err.splitlines() if "go on with: " in line]
    helios, *again = shlex.split(line.partition("go on with: ")[2])
    assert (helios, again[0]) == ("helios", "resume")
    ended = commands([again[0], folder / again[1]], tmp_path)
    assert ended.code == 0 and "going on in" in ended.err, ended.err
    same(films(folder), whole[name][0])
    made = {line for line in ended.out.splitlines() if line.endswith(".mp4")}
    assert {Path(line).resolve() for line in made} == {path.resolve() for path in folder.rglob("*.mp4")}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_bar_counts_the_videos_chunks_and_the_history_keeps_up(commands, tmp_path):
    """It ends as that of a run that nobody stopped, also where it is what the run had begun with."""
    line = ["generate", "--prompt", PROMPT, *FEW, "--save-history", "h.safetensors"]
    line += ["--steps", "9,9,9"]  # so many that the last chunk is not sampled before the kill arrives
    first, second = ["--frames", 66, "-o", "1.mp4"], ["--resume", "h.safetensors", "--frames", 66, "-o", "2.mp4"]
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    for more in (first, second):
        assert commands([*line, *more], one).code == 0
        assert commands([*line, *more], two, until='"made"').code == -signal.SIGKILL
        ended = commands([*line, *more], two)
        assert ended.code == 0, ended.err
        assert ("chunk 4/4" if more == second else "chunk 2/2") in ended.err
        assert ("chunk 3/4" if more == second else "chunk 1/2") not in ended.err, "it is there already"
        alone, again = (history(folder / "h.safetensors") for folder in (one, two))
        assert set(alone) == set(again) and all(np.array_equal(alone[key], again[key]) for key in alone)
    same(films_of(two), films_of(one))


def history(path):
    """What a saved run holds, by name."""
    with safe_open(path, framework="np") as file:
        return {**file.metadata(), **{name: file.get_tensor(name) for name in sorted(file.keys())}}


def films_of(folder):
    (folder / "h.safetensors").unlink()
    return films(folder)


def test_another_run_of_that_name_is_refused_with_the_difference(commands, tmp_path):
    folder = fresh(tmp_path / "run")
    commands(LINES["generate"], folder, until='"made"')
    kept = sorted(folder.rglob("*"))
    ended = commands([*LINES["generate"], "--seed", 3, "--fps", 12], folder)
    assert ended.code == 2 and sorted(folder.rglob("*")) == kept
    assert "with other settings: fps was 24, is 12.0; seed was 0, is 3. Go on with it (helios resume" in ended.err


@pytest.mark.parametrize("points", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_files_that_cannot_grow(commands, whole, tmp_path, points):
    """As on a full disk: a write fails somewhere in a latent, a segment, the journal or the video."""
    for largest in np.linspace(300, 50_000, points).astype(int):
        folder = fresh(tmp_path / "run")
        failed = commands(LINES["generate"], folder, largest=int(largest))
        assert failed.code == 1 and "Traceback" not in failed.err and not list(folder.glob("*.mp4"))
        assert commands(LINES["generate"], folder).code == 0
        same(films(folder), whole["generate"][0])


def mount(*options) -> bool:
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own in memory, where the machine lets a test have one."""
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)):
        pytest.skip("no disk can be mounted")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_a_disk_that_is_full_at_ten_points(commands, whole, small_disk, name):
    stopped = 0
    for kib in np.linspace(16, 400, 10).astype(int):
        folder = fresh(small_disk / "run")
        assert mount("-o", f"remount,size={kib}k", str(small_disk))
        failed = commands(LINES[name], folder)
        assert mount("-o", "remount,size=8m", str(small_disk))
        if failed.code:
            assert failed.code == 1 and "Traceback" not in failed.err
            stopped += 1
            assert commands(LINES[name], folder).code == 0
        same(films(folder), whole[name][0])
    assert stopped > 3
