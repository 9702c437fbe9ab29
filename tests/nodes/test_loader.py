"""HeliosLoader: what it offers, finds and loads. Named: D10."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from helios_video.helios_core.workflow.format import inputs_of
from helios_video.nodes import host, sockets
from support.nodes import NODES, call


def test_loader_gives_model_text_encoder_and_vae(fake_loader):
    model, encoder, vae = call("HeliosLoader", model="helios-tiny")
    assert model is fake_loader and encoder("a b").shape == (1, 512, 24)
    assert isinstance(vae, sockets.VAESocket)


def test_loader_names_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HELIOS_MODELS", str(tmp_path))
    (tmp_path / "owner" / "Helios-X").mkdir(parents=True)
    (tmp_path / "owner" / "Helios-X" / "model_index.json").write_text("{}")
    assert inputs_of(NODES["HeliosLoader"])["model"][1]["options"] == ["helios-tiny", "owner/Helios-X"]
    assert host.model_path("owner/Helios-X") == tmp_path / "owner" / "Helios-X"
    with pytest.raises(ValueError, match="no checkpoint named 'gone'.*helios-tiny, owner/Helios-X"):
        host.model_path("gone")
    before = NODES["HeliosLoader"].IS_CHANGED("owner/Helios-X")
    (tmp_path / "owner" / "Helios-X" / "model_index.json").write_text("{ }")
    assert NODES["HeliosLoader"].IS_CHANGED("owner/Helios-X") != before


def test_d10_comfyui_makes_room_before_anything_loads_and_for_each_part(comfyui, caplog):
    caplog.set_level("INFO")
    model, _, _ = call("HeliosLoader", model="helios-tiny", offload="none")
    needs = model.parts.estimate()
    assert not comfyui.freed and "weights in GiB: " in caplog.text
    assert model.parts.vae is not None
    assert comfyui.freed == [needs.part("vae", "none")]


def test_loader_offers_comfyuis_files(comfyui, tmp_path, fake_loader, monkeypatch):
    kinds = {"diffusion_models": ["wan/helios.safetensors", "q4.gguf"], "vae": ["wan.pt"]}
    kinds["text_encoders"] = ["umt5.SFT"]
    for kind, names in kinds.items():
        for name in names:
            path = tmp_path / "comfy" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"1")
            comfyui.files.setdefault(kind, {})[name] = str(path)
    inputs = inputs_of(NODES["HeliosLoader"])
    assert inputs["model"][1]["options"] == ["helios-tiny", "wan/helios.safetensors", "q4.gguf"]
    assert inputs["text_encoder"][1]["options"] == ["from model", "umt5.SFT"]
    assert inputs["vae"][1]["options"] == ["from model"]
    asked, fake_loader.estimate = {}, lambda: SimpleNamespace(device=lambda offload: 5)
    monkeypatch.setattr("helios_video.nodes.loader.load", lambda path, **o: asked.update(path=path, **o) or fake_loader)
    call("HeliosLoader", model="wan/helios.safetensors", text_encoder="umt5.SFT")
    assert asked["path"] == Path(comfyui.files["diffusion_models"]["wan/helios.safetensors"])
    assert asked["text_encoder"] == Path(comfyui.files["text_encoders"]["umt5.SFT"]) and asked["vae"] is None
    choice = ("wan/helios.safetensors", "umt5.SFT")
    before = NODES["HeliosLoader"].IS_CHANGED(*choice)
    assert before == NODES["HeliosLoader"].IS_CHANGED(*choice, "from model", backend="auto")
    asked["text_encoder"].write_bytes(b"22")
    assert NODES["HeliosLoader"].IS_CHANGED(*choice) != before
    with pytest.raises(ValueError, match="no file named 'gone' in vae; put it into models/vae"):
        call("HeliosLoader", model="helios-tiny", vae="gone")
