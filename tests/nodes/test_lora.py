"""HeliosLora: what it offers, chains and finds."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest
from helios_video.helios_core import load
from helios_video.nodes import host
from helios_video.nodes.lora import HeliosLora
from support.loras import lora_folder


def node(**inputs):
    return HeliosLora().apply(**inputs)


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lora_folder(tmp_path)


def test_node_offers_safetensors_and_companions_and_chains(here):
    kinds = HeliosLora.INPUT_TYPES()
    assert kinds["required"]["lora"][0] == ["none", "a.safetensors", "sub/b.safetensors"]
    assert kinds["optional"]["companion"][0] == ["none", "other/transformer_partial.pth"]
    helios = load()
    assert node(model=helios, lora="none", strength=1.0) == (helios, "no LoRA")
    one, first = node(model=helios, lora="a.safetensors", strength=0.5)
    two, both = node(model=one, lora="sub/b.safetensors", strength=-1.0, mode="merge")
    assert one.parts.loaded is two.parts.loaded is helios.parts.loaded
    assert (one.parts.loras.mode, two.parts.loras.mode) == ("apply", "merge")
    assert both == f"{first}\nb.safetensors at -1: 8 layers changed" and len(one.parts.loras.files) == 1
    with pytest.raises(ValueError, match="no LoRA file named 'gone.safetensors' in .*models.loras"):
        node(model=helios, lora="gone.safetensors", strength=1.0)
    with pytest.raises(ValueError, match="is no transformer_partial.pth"):
        node(model=helios, lora="none", strength=1.0, companion="other/transformer_partial.pth")


def test_node_runs_again_when_a_file_changes(here):
    before = HeliosLora.IS_CHANGED(lora="a.safetensors", strength=1.0)
    assert before == HeliosLora.IS_CHANGED(lora="a.safetensors", strength=0.5) != HeliosLora.IS_CHANGED(lora="none")
    os.utime(here / "a.safetensors", (1, 1))
    assert before != HeliosLora.IS_CHANGED(lora="a.safetensors", strength=1.0)


def test_node_uses_comfyuis_loras_folder(monkeypatch, here):
    paths = ModuleType("folder_paths")
    paths.get_filename_list = lambda kind: ["x.safetensors", "x.pth", "y.ckpt", "z.SFT"] if kind == "loras" else []
    paths.get_full_path = lambda kind, name: str(here / "a.safetensors") if name == "x.safetensors" else None
    paths.get_folder_paths = lambda kind: [str(here)]
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    assert host.lora_names() == ["x.safetensors", "z.SFT"] and host.companion_names() == ["x.pth"]
    assert host.lora_path("x.safetensors") == here / "a.safetensors"
    with pytest.raises(ValueError, match="no LoRA file named 'y.safetensors'"):
        host.lora_path("y.safetensors")
