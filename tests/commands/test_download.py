"""`helios download`, with a hub on this disk in place of the network; it has huggingface_hub's signatures."""

import errno
import fnmatch
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import create_autospec

import huggingface_hub
import huggingface_hub.errors
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import download
from helios_video.helios_core.config import INDEX
from helios_video.helios_core.pipeline import TINY
from support.hub import serving

OTHERS = {"transformer_ode/diffusion_pytorch_model.safetensors": 9000, "vae/pytorch_model.bin": 70, ".gitattributes": 5}


class Hub:
    """A repository with helios-tiny's files and some that no video needs.

    sizes: what the list says of a file, where that is not the truth; cut: a file of which half arrives; fails: raised
    on the way.
    """

    def __init__(self):
        self.sizes, self.cut, self.fails, self.fetched = dict(OTHERS), None, None, []
        names = [path.relative_to(TINY).as_posix() for path in sorted(TINY.rglob("*")) if path.is_file()]
        self.files = {name: (TINY / name).stat().st_size for name in names}

    def model_info(self, _, repo_id, *, files_metadata=False, **others):
        """As HfApi.model_info."""
        if self.fails:
            raise self.fails
        listed = {**self.files, **self.sizes}
        siblings = [SimpleNamespace(rfilename=n, size=size if files_metadata else None) for n, size in listed.items()]
        return SimpleNamespace(sha="c0ffee", siblings=siblings)

    def snapshot_download(self, repo_id, *, revision, local_dir, allow_patterns, **others):
        """As the function of that name."""
        assert revision == "c0ffee" and repo_id in download.REPOSITORIES.values()
        for name in [n for n in {**self.files, **OTHERS} if any(fnmatch.fnmatch(n, p) for p in allow_patterns)]:
            place = local_dir / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TINY / name, place)
            self.fetched.append(name)
            if name == self.cut:
                place.write_bytes(place.read_bytes()[:-50])
        return str(local_dir)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """In place of the real one, in a folder of the test's own."""
    made = Hub()
    info = create_autospec(huggingface_hub.HfApi.model_info, side_effect=made.model_info)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    snapshot = create_autospec(huggingface_hub.snapshot_download, side_effect=made.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HELIOS_MODELS", raising=False)
    return made


def test_what_is_fetched_is_said_first_and_can_be_loaded_by_name(hub, tmp_path, capsys):
    assert main(["download", "distilled"]) == 0
    out, err = capsys.readouterr()
    place = tmp_path / "models" / "helios" / "Helios-Distilled"
    assert out.splitlines() == [str(place)]
    assert f"in all {download.gigabytes(sum(hub.files.values()))}" in err and "BestWishYsh/Helios-Distilled" in err
    assert "left out, as no video needs it: transformer_ode" in err and "--model Helios-Distilled" in err
    assert set(hub.fetched) == set(hub.files) and (place / INDEX).is_file()
    assert load(place).config.variant


def test_the_same_command_fetches_only_what_is_missing(hub, capsys):
    for _ in range(2):
        assert main(["download", "mid", "--to", "weights"]) == 0
    first = len(hub.files)
    assert len(hub.fetched) == first and "0.0 MB to fetch" in capsys.readouterr().err
    lost = download.Path("weights") / "Helios-Mid" / "vae" / "diffusion_pytorch_model.safetensors"
    lost.write_bytes(lost.read_bytes()[:-1])
    assert main(["download", "mid", "--to", "weights"]) == 0
    assert hub.fetched[first:] == ["vae/diffusion_pytorch_model.safetensors"]


def test_a_dry_run_fetches_nothing(hub, tmp_path, capsys):
    assert main(["download", "base", "--dry-run"]) == 0
    assert "to fetch" in capsys.readouterr().err and not hub.fetched and not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before(hub, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    hub.sizes["transformer/more.safetensors"] = 57 * 10**9
    assert main(["download", "distilled"]) == 2
    assert "1.0 GB are free on that disk" in capsys.readouterr().err and not hub.fetched


def test_a_file_that_arrives_cut_is_named(hub, capsys):
    hub.cut = "vae/diffusion_pytorch_model.safetensors"
    assert main(["download", "distilled"]) == 2
    assert f"{hub.cut} did not arrive whole" in capsys.readouterr().err


@pytest.mark.parametrize("why", [ConnectionError("no route to host"), huggingface_hub.errors.OfflineModeIsEnabled("x")])
def test_without_the_network_there_is_a_way_by_hand(hub, why, capsys):
    hub.fails = why
    assert main(["download", "distilled"]) == 2
    err = capsys.readouterr().err
    assert (
        "could not be reached" in err and "Nothing was changed" in err and "By hand: " in err and err.count("\n") == 1
    )


def test_a_full_disk_is_one(hub, capsys):
    hub.fails = OSError(errno.ENOSPC, "No space left on device")
    assert main(["download", "distilled"]) == 1
    assert "make room on the disk" in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install(hub, monkeypatch, capsys):
    monkeypatch.setattr(download, "installed", lambda name: name != "huggingface_hub")
    assert main(["download", "distilled"]) == 2
    assert "pip install 'helios-video[download]'" in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "helios_video.helios_core.cli", "download", "distilled"]
LARGE = {"tokenizer/large.txt": bytes(30 << 20), "transformer_ode/model.safetensors": b"x" * 999}


def to(hub, tmp_path) -> dict:
    """How a process is started that takes that hub for the real one."""
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path), "HELIOS_MODELS": ""}
    return {"cwd": tmp_path, "env": {**os.environ, **environment, "NO_PROXY": "127.0.0.1"}, "stderr": subprocess.PIPE}


def test_the_real_library_goes_on_within_a_file_when_the_line_goes_dead(tmp_path):
    """huggingface_hub's own requests, to a hub on this machine."""
    with serving(TINY, LARGE, slow="tokenizer/large.txt") as made:
        run = subprocess.run(COMMAND, **to(made, tmp_path), text=True)
    assert run.returncode == 0, run.stderr
    found = tmp_path / "models" / "helios" / "Helios-Distilled"
    assert load(found).config.variant and not (found / "transformer_ode").exists()
    assert (found / "tokenizer" / "large.txt").read_bytes() == LARGE["tokenizer/large.txt"]
    assert [start >= 10 << 20 for name, start in made.given if name == "tokenizer/large.txt"] == [False, True]


def test_after_a_kill_files_that_are_whole_are_kept(tmp_path):
    with serving(TINY, LARGE, slow="tokenizer/large.txt", seconds=20) as made:
        with subprocess.Popen(COMMAND, **to(made, tmp_path)) as first:
            assert made.stalled.wait(60)
            time.sleep(2)  # for the others to arrive
            first.kill()
        before = {name for name, _ in made.given} - {"tokenizer/large.txt"}
        made.given.clear()
        run = subprocess.run(COMMAND, **to(made, tmp_path), text=True)
    assert run.returncode == 0, run.stderr
    assert "transformer/diffusion_pytorch_model.safetensors" in before and len(before) > 4
    assert not before & {name for name, _ in made.given}, "what was whole was fetched again"


def test_what_a_kill_left_and_nobody_takes_up_goes(tmp_path):
    folder = tmp_path / download.UNFINISHED / "vae"
    folder.mkdir(parents=True)
    for name, age in (("a.0123abcd.incomplete", 99), ("b.0123abcd.incomplete", 0), ("c.incomplete", 99)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert [file.name for file in download.unfinished(tmp_path)] == ["b.0123abcd.incomplete", "c.incomplete"]
    assert not (folder / "a.0123abcd.incomplete").exists()
