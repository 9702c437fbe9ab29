"""`helios train lora` end to end, a few steps on helios-tiny: stopped, killed, gone on; the file; all weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.drawn import draw, scenes
from helios_video.helios_core.join import video
from helios_video.helios_core.training.lora import learners, lessons, run
from helios_video.helios_core.with_loras import with_loras
from safetensors import safe_open
from safetensors.torch import load_file

HOW = ["--steps", "3", "--first-steps", "2", "--batch", "2", "--rank", "2", "--lessons", "1"]
SMALL = ((lessons, "MANY", 1), (run, "VIDEOS", 2), (run, "KEPT_PROMPTS", 2))
HOW += ["--save-every", "2", "--log-every", "1", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i, colour in enumerate(("red", "blue")):
        video.write_video(folder / f"{i}.mp4", draw(scenes.scene(colour, "circle", "left", "plain"), 33))
        (folder / f"{i}.txt").write_text(f"a {colour} blob moving left")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few steps per lesson, and encoded clips found again."""
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


def train(data, place, *more):
    return main(["train", "lora", "--data", str(data), "--folder", str(place / "run"), *HOW, *more])


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing stopped: its file."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELIOS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for module, name, value in SMALL:
            patch.setattr(module, name, value)
        assert train(data, place, "-o", str(place / "a.safetensors"), "--sample-every", "2") == 0
    return place / "a.safetensors"


def assert_same(one, other):
    """To the bit; the order of a file's metadata is drawn anew each time."""
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_file_changes_the_model_and_says_how_it_was_made(whole):
    with safe_open(whole, "pt") as file:
        keys, facts = list(file.keys()), file.metadata()
    assert all(
        key.startswith("transformer.blocks.") and key.endswith((".lora_A.weight", ".lora_B.weight")) for key in keys
    )
    assert json.loads(facts["helios_training"])["rank"] == 2 and facts["helios_clips"] == "2"
    helios = load("helios-tiny", backend="torch")
    made = with_loras(helios, [(whole, 1.0)])
    assert "40 layers changed" in made.parts.loras.report
    place = whole.parent / "run"
    assert {"first.csv", "few_steps.csv", "few_steps.png"} <= {path.name for path in place.iterdir()}
    assert sorted(p.name for p in (place / "samples").iterdir()) == [
        "few_steps_000002.png", "few_steps_000003.png",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["first", "few_steps"])
def test_a_stopped_run_goes_on_to_the_same_file(whole, data, tmp_path, monkeypatch, where):
    """As Stop and kill do: in one the state of the very step is kept, in the other that of the last checkpoint."""

    class Stopped(Exception):
        pass

    real = run.LoraTraining.fit

    def stopping(self, name, *args):
        def step(done, total):
            if name == where and done == 1:
                raise Stopped

        self.watch.step = step
        real(self, name, *args)

    output = tmp_path / "a.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(run.LoraTraining, "fit", stopping)
        assert train(data, tmp_path, "-o", str(output)) != 0
    assert not output.exists() and (tmp_path / "run" / f"{where}.pt").is_file()
    assert train(data, tmp_path, "-o", str(output)) == 0
    assert_same(output, whole)


def test_a_run_that_is_killed_loses_what_came_after_the_last_checkpoint(whole, data, tmp_path, monkeypatch):
    output, place = tmp_path / "a.safetensors", tmp_path / "run"
    shutil.copytree(whole.parent / "run", place)
    (place / "few_steps.pt").unlink()  # as after a kill before its first checkpoint
    (place / "helios-outputs.json").unlink()
    assert train(data, tmp_path, "-o", str(output)) == 0
    assert_same(output, whole)


def test_another_rank_or_changed_captions_do_not_go_on(whole, data, tmp_path, capsys):
    shutil.copytree(whole.parent / "run", tmp_path / "run")
    assert train(data, tmp_path, "-o", str(tmp_path / "b.safetensors"), "--rank", "3") == 2
    assert "rank was 2, is 3" in capsys.readouterr().err


def test_all_weights_become_a_folder(data, tmp_path):
    assert train(data, tmp_path, "--full", "--few-steps", "off", "-o", str(tmp_path / "all")) == 0
    made, base = load(tmp_path / "all", backend="torch"), load("helios-tiny", backend="torch")
    assert made.config.transformer == base.config.transformer
    one, other = (h.parts.transformer.proj_out.weight for h in (made, base))
    assert one.shape == other.shape and not torch.equal(one, other)


@pytest.mark.parametrize(
    "more, said",
    [
        (["--targets", "nowhere"], "names no layer"),
        (["--blocks", "9"], "ranges from 0 to 3"),
        (["--stages", "two"], "--stages two: wanted auto, all, one"),
        (["--pixels", "100"], "the smallest size of this model is 64x64"),
        (["-o", "x.pt"], "a LoRA is a .safetensors file"),
        (["--drop-caption", "2"], "--drop-caption"),
        (["--data", "nowhere"], "not a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(data, tmp_path, monkeypatch, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    assert train(data, tmp_path, "-o", str(tmp_path / "a.safetensors"), *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_large_checkpoint_of_few_steps_is_sent_to_base_or_mid(monkeypatch, data, tmp_path, capsys):
    monkeypatch.setattr(run, "SMALL", 10)
    assert train(data, tmp_path, "-o", str(tmp_path / "a.safetensors")) == 2
    assert "Train on Base or Mid" in capsys.readouterr().err


def test_the_estimate_needs_no_data(capsys):
    assert main(["train", "lora", "--estimate"]) == 0
    assert "GB of the GPU's memory" in capsys.readouterr().out
    assert main(["train", "lora", "--estimate", "--model", "14B", "--weight-dtype", "int4", "--rank", "32"]) == 0
    assert "25.2 GB of the GPU's memory (23.4 GiB)" in capsys.readouterr().out


def test_lessons_become_clips_chunk_behind_chunk():
    rng = torch.Generator().manual_seed(0)
    ends = torch.randn(2 * 2 * 3, 16, 9, 2, 2, generator=rng)  # rounds, chunks, videos
    made = lessons.KeptLessons(
        (), (ends,), ends, ends, torch.tensor([0, 1, 2, 0, 1, 2, 2, 1, 0, 2, 1, 0]), list("abc"), 3
    )
    clips = made.clips()
    assert [c.captions for c in clips] == [("a",), ("b",), ("c",), ("c",), ("b",), ("a",)]
    assert torch.equal(clips[4].latents, torch.cat([ends[7], ends[10]], dim=1))
    assert learners._cast("a.norm2.weight", torch.zeros(1).double()).dtype == torch.float32
