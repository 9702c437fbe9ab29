"""HeliosTrainLora: what it asks the core for, where its state and file go, and Stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.training.lora import run
from helios_video.nodes import training
from PIL import Image

NODE = training.HeliosTrainLora
GIVEN = {"model": "helios-tiny", "folder": "clips", "steps": 3, "rank": 2, "output_name": "mine"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that is input and output, with two pictures in a folder of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "clips" / f"{name}.png")
        (tmp_path / "clips" / f"{name}.txt").write_text("a picture")
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What the core was asked to train; it draws one sample and writes the file."""
    seen = []

    def fake(settings, helios, data, folder, output, *, watch):
        seen.append((settings, helios.parts.library, data, folder, output))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), 255, np.uint8)).save(folder / "sheet.png")
        watch.part("few_steps", 3)
        watch.sample(folder / "sheet.png")
        watch.step(1, 3)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()

    monkeypatch.setattr(run, "run", fake)
    return seen


def test_it_trains_on_a_folder_of_the_input_folder_into_loras(place, asked):
    assert NODE.INPUT_TYPES()["required"]["folder"][0] == ["none", "clips"]
    name, samples, report = NODE().train(**GIVEN, learning_rate=1e-3)["result"]
    [(settings, library, data, folder, output)] = asked
    assert (settings.rank, settings.steps, settings.lr, library) == (2, 3, 1e-3, "torch")
    assert data == place / "clips" and output == place / "models" / "loras" / "mine.safetensors"
    assert name == "mine.safetensors" and "2 files, 3 steps, rank 2" in report
    assert samples.shape == (1, 4, 6, 3) and torch.equal(samples, torch.ones_like(samples))
    assert NODE().train(**GIVEN)["result"][0] == "mine_2.safetensors"


def test_the_same_settings_go_on_and_others_begin_anew(place, asked):
    for more in ({}, {}, {"rank": 3}):
        NODE().train(**{**GIVEN, **more})
    (place / "clips" / "a.txt").write_text("another picture")
    NODE().train(**GIVEN)
    folders = [folder for _, _, _, folder, _ in asked]
    assert folders[0] == folders[1] and len(set(folders)) == 3
    assert all(folder.parent == place / "helios-training" for folder in folders)
    before = NODE.IS_CHANGED(folder="clips")
    (place / "clips" / "c.txt").write_text("c")
    assert NODE.IS_CHANGED(folder="clips") != before


@pytest.mark.parametrize(
    "more, said",
    [
        ({"folder": "none"}, "put one with clips or pictures"),
        ({"folder": ".."}, "no folder named"),
        ({"output_name": "../mine"}, "wanted one inside"),
        ({"output_name": " "}, "needs a file name"),
        ({"folder": "empty"}, "holds no clips or pictures"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(place, asked, more, said):
    (place / "empty").mkdir()
    with pytest.raises(ValueError, match=said):
        NODE().train(**{**GIVEN, **more})
    assert not asked and not (place / "helios-training").exists()


def test_without_samples_there_is_a_grey_pixel(place, monkeypatch):
    monkeypatch.setattr(run, "run", lambda *args, **how: None)
    _, samples, _ = NODE().train(**GIVEN, sample_every=0)["result"]
    assert samples.shape == (1, 1, 1, 3)
