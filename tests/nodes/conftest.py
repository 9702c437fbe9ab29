"""The few functions of ComfyUI that the nodes call."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helios_video.nodes import engine, host
from support.nodes import Stopped


@pytest.fixture
def comfyui(monkeypatch, tmp_path):
    """The few functions of ComfyUI that host.py calls, and what was asked of them."""
    seen = SimpleNamespace(progress=[], stop=False, freed=[], files={}, folders={})

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            seen.progress.append((value, total, preview))

    def check():
        if seen.stop:
            raise Stopped

    known = {}

    def add(name, path, is_default=False):
        known.setdefault(name, [])
        known[name].append(path) if path not in known[name] else None

    management = SimpleNamespace(
        throw_exception_if_processing_interrupted=check,
        get_torch_device=lambda: torch.device("cpu"),
        vae_device=lambda: torch.device("cpu"),
        text_encoder_device=lambda: torch.device("cpu"),
        free_memory=lambda size, device: seen.freed.append(size),
        soft_empty_cache=lambda: None,
    )
    modules = {
        "folder_paths": SimpleNamespace(
            models_dir=str(tmp_path / "models"),
            add_model_folder_path=add,
            get_folder_paths=lambda name: list(known[name]),
            get_filename_list=lambda kind: list(seen.files.get(kind, {})),
            folder_names_and_paths=seen.folders,
            get_full_path=lambda kind, name: seen.files.get(kind, {}).get(name),
            get_temp_directory=lambda: str(tmp_path / "temp"),
            get_user_directory=lambda: str(tmp_path / "user"),
        ),
        "comfy": SimpleNamespace(),
        "comfy.utils": SimpleNamespace(ProgressBar=Bar),
        "comfy.model_management": management,
        "comfy.latent_formats": SimpleNamespace(Wan21=lambda: SimpleNamespace(latents_mean=torch.zeros(16))),
        "latent_preview": SimpleNamespace(
            get_previewer=lambda device, wan: SimpleNamespace(
                decode_latent_to_preview_image=lambda kind, z: (kind, z, wan.latent_rgb_factors)
            ),
            MAX_PREVIEW_RESOLUTION=512,
        ),
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(vars(content))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(engine, "open_model", lambda helios, vae: helios)  # ComfyUI's engine: comfyui/test_engine.py
    return seen


@pytest.fixture
def temp(comfyui, tmp_path, monkeypatch):
    """ChunkConcat under the stand-in ComfyUI, with a VIDEO of our own."""
    from helios_video.helios_core.workflow.standins import VideoFile

    api = ModuleType(host.API)
    api.Input = SimpleNamespace(Video=SimpleNamespace(register=lambda kind: None))
    api.InputImpl = SimpleNamespace(VideoFromFile=VideoFile)
    monkeypatch.setitem(sys.modules, host.API, api)
    return tmp_path / "temp"
