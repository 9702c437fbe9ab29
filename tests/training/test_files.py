"""Files of Unified Latents models: what was trained, strictly."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends.torch.ul import load_ul
from helios_video.helios_core.training.files import save_ul
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
