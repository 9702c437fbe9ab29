"""A training's folder belongs to the settings that made it: others are refused by name, more steps go on."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import train
from helios_video.helios_core.commands.settings import INPUTS, FromFile, note_output
from PIL import Image


@dataclass(frozen=True)
class Some(FromFile):
    sizes: str = "small"
    weight: float = 0.1
    steps: int = 10
    save_every: int = 5
    log_every: int = 5


def begin(folder: Path, of=None, **given) -> Some:
    """As a command does, with the options that are given."""
    options = dict.fromkeys(("sizes", "weight", "steps", "save_every", "log_every")) | given
    args = argparse.Namespace(config=None, threads=None, folder=folder, output=folder.parent / "out", **options)
    return Some.begin(args, ["made.pt"], None if of is None else lambda settings: of)


@pytest.fixture
def run(tmp_path):
    """The folder of a run with weight 0.1 and 10 steps of data a, of which something was made."""
    begin(tmp_path / "run", of={"data": "a"})
    (tmp_path / "run" / "made.pt").touch()
    return tmp_path / "run"


def test_the_same_settings_go_on_and_what_changes_no_result_may_differ(run):
    assert begin(run, of={"data": "a"}, save_every=1, log_every=2).save_every == 1


@pytest.mark.parametrize(
    ("given", "of", "says"),
    [
        ({"weight": 5.0}, {}, "weight was 0.1, is 5.0"),
        ({"steps": 9}, {}, "steps was 10, is 9"),
        ({}, {"data": "b"}, "data was a, is b"),
        ({"weight": 5.0, "steps": 20}, {"data": "b"}, "weight was 0.1, is 5.0; data was a, is b"),
    ],
)
def test_other_settings_are_refused_with_the_difference_named(run, given, of, says):
    before = (run / "config.json").read_bytes()
    with pytest.raises(ValueError, match=f"other settings: {says}"):
        begin(run, of={"data": "a"} | of, **given)
    assert (run / "config.json").read_bytes() == before


def test_more_steps_go_on_and_are_the_folder_s_from_then_on(run):
    begin(run, of={"data": "a"}, steps=20)
    with pytest.raises(ValueError, match="steps was 20, is 10"):
        begin(run, of={"data": "a"})


def test_settings_that_made_nothing_bind_nobody(tmp_path):
    begin(tmp_path / "run", weight=5.0)
    assert begin(tmp_path / "run", weight=0.1).weight == 0.1


def test_a_run_without_its_settings_is_refused(run):
    (run / "config.json").unlink()
    with pytest.raises(ValueError, match="made.pt is there, but not config.json"):
        begin(run, of={"data": "a"})


def test_a_run_of_before_inputs_were_recorded_goes_on(run):
    record = json.loads((run / "config.json").read_text())
    assert record.pop(INPUTS) == {"data": "a"}
    (run / "config.json").write_text(json.dumps(record))
    begin(run, of={"data": "b"})


def test_a_file_that_settings_name_counts_by_its_content(tmp_path):
    sizes = tmp_path / "sizes.json"
    sizes.write_text("{}")
    begin(tmp_path / "run", sizes=str(sizes))
    (tmp_path / "run" / "made.pt").touch()
    begin(tmp_path / "run", sizes=str(sizes))
    sizes.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="sizes, its content was"):
        begin(tmp_path / "run", sizes=str(sizes))


def test_the_file_of_a_run_s_settings_is_a_config(run):
    assert Some.read(run / "config.json", weight=5.0).weight == 5.0


def test_places_that_cannot_be_written_are_refused_before_the_folder_is_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write into"):
        begin(tmp_path / "file" / "run")
    assert {p.name for p in tmp_path.iterdir()} == {"file"}


def test_of_helios_tiny_only_the_last_part_may_grow():
    """More steps of the VAE would be other latents than the clips that the rest was trained on."""
    assert train.TinySettings.growing == ("distil_steps",)


def test_an_output_that_is_there_is_replaced_by_its_own_training_alone(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out exists already, and is not what the training in .*run wrote"):
        begin(tmp_path / "run")
    (tmp_path / "out").unlink()
    begin(tmp_path / "run")
    (tmp_path / "out").write_text("the training's")  # killed before it could note that
    begin(tmp_path / "run")
    note_output(tmp_path / "run", tmp_path / "out")
    begin(tmp_path / "run", steps=20)
    note_output(tmp_path / "run", tmp_path / "out")
    with pytest.raises(ValueError, match="is not what the training in .*other wrote"):
        begin(tmp_path / "other")
    (tmp_path / "out").write_text("mine by now")
    with pytest.raises(ValueError, match="is not what the training in .*run wrote"):
        begin(tmp_path / "run")
    assert (tmp_path / "out").read_text() == "mine by now"


def test_a_folder_to_write_counts_by_what_it_holds(tmp_path):
    (tmp_path / "out").mkdir()
    begin(tmp_path / "run")
    (tmp_path / "out" / "model_index.json").touch()
    note_output(tmp_path / "run", tmp_path / "out")
    begin(tmp_path / "run")
    with pytest.raises(ValueError, match="out exists already"):
        begin(tmp_path / "other")


def test_other_weights_in_the_folder_of_a_finished_run_are_not_its_result(tmp_path, capsys):
    """`train ve --weight 5` wrote the weights of --weight 0.1 as its own."""
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    small = ["--size", "16", "--steps", "2", "--batch", "2", "--base-dim", "4", "--threads", "1"]
    places = ["--data", str(tmp_path), "--folder", str(tmp_path / "run"), "-o", str(tmp_path / "vae.safetensors")]
    assert main(["train", "ve", *places, *small]) == 0
    made = (tmp_path / "vae.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["train", "ve", *places, *small, "--weight", "5"]) == 2
    assert "weight was 0.1, is 5.0" in capsys.readouterr().err
    assert main(["train", "ve", *places, *small, "--vae", "helios-tiny"]) == 2
    assert "vae was a new one, is" in capsys.readouterr().err
    elsewhere = ["--data", str(tmp_path), "--folder", str(tmp_path / "new"), "-o", str(tmp_path / "vae.safetensors")]
    assert main(["train", "ve", *elsewhere, *small, "--weight", "5"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert (tmp_path / "vae.safetensors").read_bytes() == made
    assert main(["train", "ve", *places, *small, "--steps", "3"]) == 0


def test_a_folder_of_unified_latents_belongs_to_its_settings(tmp_path, capsys):
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    small = ["--model", "tiny", "--size", "16", "--steps", "2", "--batch", "2", "--threads", "1"]
    places = ["--data", str(tmp_path), "--folder", str(tmp_path / "run"), "-o", str(tmp_path / "ul.safetensors")]
    assert main(["train", "ul", "--stage", "1", *places, *small]) == 0
    made = (tmp_path / "ul.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["train", "ul", "--stage", "1", *places, *small, "--loss-factor", "9"]) == 2
    assert "loss_factor was 1.5, is 9.0" in capsys.readouterr().err
    assert main(["train", "ul", "--stage", "1", *places[:3], str(tmp_path / "new"), *places[4:], *small]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "ul.safetensors").read_bytes() == made


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "5", None])
def test_numbers_are_finite_numbers(tmp_path, value):
    (tmp_path / "c.json").write_text(json.dumps({"weight": value}))
    with pytest.raises(ValueError, match="weight must be a positive float or 0"):
        Some.read(tmp_path / "c.json")


def test_a_folder_with_anothers_config_is_let_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "wan"}')
    with pytest.raises(ValueError, match="config.json is there already and is no training's"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
