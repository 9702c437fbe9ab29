"""The model folders of somebody who has no ComfyUI."""

import re

import pytest
import torch
from helios_video.helios_core import load
from safetensors.torch import save_file
from support.parts import CONFIG


def test_files_without_comfyui(files, tmp_path, monkeypatch, capsys):
    """models/diffusion_models and so on of the folder one works in: on the command line, and in the loader."""
    from helios_video.helios_core.checkpoint import folders
    from helios_video.helios_core.commands.doctor import doctor
    from helios_video.nodes import host

    places = dict(zip(("diffusion_models", "text_encoders", "vae"), files, strict=True))
    for kind, file in places.items():
        (tmp_path / "work" / "models" / kind).mkdir(parents=True)
        file.rename(tmp_path / "work" / "models" / kind / file.name)
    save_file(
        {"double_blocks.0.img_attn_qkv.weight": torch.zeros(1)}, tmp_path / "work/models/diffusion_models/z.safetensors"
    )
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HELIOS_MODELS", raising=False)
    assert host.model_names() == ["helios-tiny", "helios.safetensors", "z.safetensors"]
    assert host.model_path("helios.safetensors") == folders.find_checkpoint("helios.safetensors")
    assert host.file_names("vae") == ["wan_2.1_vae.safetensors"] and host.part_path("vae", "from model") is None
    model = load(
        folders.find_checkpoint("helios.safetensors"),
        text_encoder=folders.find_file("text_encoders", "umt5.safetensors"),
        vae=host.part_path("vae", "wan_2.1_vae.safetensors"),
    )
    assert model.config.transformer == CONFIG.transformer
    with pytest.raises(ValueError, match="no file 'x', here or in models/vae, which holds wan_2.1_vae.safetensors"):
        folders.find_file("vae", "x")
    doctor()
    said = capsys.readouterr().out
    assert re.search(r"helios.safetensors: \d+ MiB, needs --vae and --text-encoder", said)
    assert "z.safetensors: cannot be used" in said and "seems to be a HunyuanVideo transformer" in said
