"""Small checkpoints in every file form, and a folder as published."""

import shutil

import pytest
from helios_video.helios_core.checkpoint import names as keys
from safetensors.torch import save_file
from support.parts import bytes_tensor, make_spiece, make_states
from support.published import make_published


@pytest.fixture(scope="module")
def states():
    return make_states()


@pytest.fixture(scope="module")
def spiece():
    return make_spiece()


@pytest.fixture
def files(states, spiece, tmp_path):
    """The three files of a ComfyUI user."""
    save_file(states["transformer"], tmp_path / "helios.safetensors")
    wan = keys.wan_names(states["vae"])
    save_file({wan[name]: value for name, value in states["vae"].items()}, tmp_path / "wan_2.1_vae.safetensors")
    save_file(states["text_encoder"] | {"spiece_model": bytes_tensor(spiece)}, tmp_path / "umt5.safetensors")
    return tmp_path / "helios.safetensors", tmp_path / "umt5.safetensors", tmp_path / "wan_2.1_vae.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("published") / "checkpoint")


@pytest.fixture
def folder(published, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"
