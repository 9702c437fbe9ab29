"""Files of Unified Latents models: what was trained, strictly."""

from __future__ import annotations

import threading

import pytest
import torch
from helios_video.helios_core.backends.torch.ul import load_ul
from helios_video.helios_core.training import files as training_files
from helios_video.helios_core.training.files import load_shards, save_ul
from helios_video.helios_core.ul import files
from support.ul import IMAGE, build


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


def test_processes_that_train_together_make_a_share_of_the_shards_each(tmp_path, monkeypatch):
    """Here two threads; none makes what the other does, and both have all of them, whoever is slower."""
    own, made, found, late = threading.local(), {}, {}, threading.Event()
    monkeypatch.setattr(training_files, "among_local", lambda: (own.number, 2))
    monkeypatch.setattr(training_files, "WAIT", 0.01)

    def work(number):
        def make(index):
            assert number == 0 or late.wait(10)
            made.setdefault(number, []).append(index)
            late.set()
            return {"x": torch.tensor([index])}

        own.number = number
        found[number] = [int(part["x"]) for part in load_shards(tmp_path, "clips", 5, make)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert made == {0: [0, 2, 4], 1: [1, 3]}
    assert found == {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}
