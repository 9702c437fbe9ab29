"""ComfyUI's Select Device nodes where there are two devices, one of which is only named: a part that goes there and
back again computes what it did before, and one that is not theirs to place is passed on. Read off ComfyUI's log."""

from __future__ import annotations

import json

import pytest
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, messages, nodes, saved, twin, with_value
from support.wan import narrow_vae

pytestmark = NEEDED
PROBES = """
import comfy.model_management as management, torch

own = getattr(management, "resolve_gpu_device_option", None)
management.resolve_gpu_device_option = lambda option: torch.device("cuda", 1) if option == "gpu:1" else own(option)
management.unet_manual_cast = lambda *_, **__: None  # asks the device, which is not there
NODE_CLASS_MAPPINGS = {}
"""
KINDS = ("SelectModelDevice", "SelectCLIPDevice", "SelectVAEDevice")  # by the loader's outputs
PARTS = ("model", "clip", "vae")
AWAY_AND_BACK = ("gpu:1", "default")


def placed(seed: int, *devices: str, vae: str = "") -> dict:
    """text_to_video with every part of the loader through the nodes that choose a device. vae: a file's, instead."""
    prompt = with_value(twin("text_to_video"), "DMDPyramidSample", steps="1,1,1", boost_first_chunk=False)
    with_value(with_value(prompt, "HistoryMemory", width=64, height=64), "PrimitiveInt", value=seed)
    (loader,) = nodes(prompt, "HeliosLoader")
    readers = list(prompt.values())
    prompt["80"] = {"class_type": "VAELoader", "inputs": {"vae_name": vae}} if vae else prompt[loader]
    for slot, (kind, part) in enumerate(zip(KINDS, PARTS)):
        last = ["80", 0] if vae and part == "vae" else [loader, slot]
        for i, device in enumerate(devices):
            prompt[f"9{slot}{i}"] = {"class_type": kind, "inputs": {part: last, "device": device}}
            last = [f"9{slot}{i}", 0]
        for node in readers:
            node["inputs"] |= {name: last for name, value in node["inputs"].items() if value == [loader, slot]}
    return prompt if vae else {i: node for i, node in prompt.items() if i != "80"}


@pytest.fixture
def frames(server):
    """A function from a prompt to the frames of its file, and what ComfyUI said meanwhile."""
    if "SelectVAEDevice" not in json.loads(server.get("/object_info")):
        pytest.skip("this ComfyUI chooses no devices")

    def run(prompt):
        before = len((server.base / "log.txt").read_text())
        entry = server.run(prompt)
        assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
        return video.read_frames(saved(server, entry)), (server.base / "log.txt").read_text()[before:]

    return run


@pytest.mark.parametrize(
    ("devices", "passed"),
    [(("default",), 0), (("cpu",), 2), (("gpu:7",), 3), (AWAY_AND_BACK, 2)],
)
def test_every_part_passes_or_moves_whatever_is_chosen(frames, devices, passed):
    """Passed on are helios-tiny's VAE and the text encoder; of a device that is not there, all. Each has a seed of its
    own, so that nothing is found again."""
    seed = 50 + len(" ".join(devices))
    _, said = frames(placed(seed, *devices))
    assert said.count("passing through unchanged") == passed, said
    assert ("deepclone of HeliosModel for cuda:1" in said) == (devices == AWAY_AND_BACK)
    assert ("deepclone of HeliosModel for cpu" in said) == (devices == AWAY_AND_BACK)


def test_comfyuis_own_vae_goes_away_and_back(server, frames):
    vae = narrow_vae(server.base / "models" / "vae", 1)
    moved, said = frames(placed(6, *AWAY_AND_BACK, vae=vae))
    assert "deepclone of WanVAE for cuda:1" in said and "deepclone of WanVAE for cpu" in said
    assert (moved == frames(placed(6, "default", vae=vae))[0]).all()
