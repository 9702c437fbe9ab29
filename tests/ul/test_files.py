"""Files of Unified Latents models: untrained and foreign ones are refused."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.training.files import save_ul
from helios_video.helios_core.ul import files
from support.ul import IMAGE, build


def test_a_file_that_decodes_to_noise_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    save_ul(build(IMAGE, ("decoder",)), file, steps=0)
    with pytest.raises(ValueError, match="never trained"):
        files.open_file(file)
    save_ul(build(IMAGE, ("decoder",)), file, steps=1)
    with pytest.raises(ValueError, match="holds no encoder, only decoder"):
        files.open_file(file).narrow(("encoder",))


def test_another_models_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no Unified Latents model"):
        files.open_file(tmp_path / "x.safetensors")
