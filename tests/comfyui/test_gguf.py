"""A GGUF file in ComfyUI: HeliosLoader lists it, and its blocks compute on ComfyUI's engine, LoRAs added to them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.convert.convert import convert
from helios_video.helios_core.pipeline import TINY
from helios_video.helios_core.with_loras import with_loras
from safetensors.numpy import save_file
from support.comfyui import NEEDED, PROBE_LATENT, messages

pytest.importorskip("gguf")
pytestmark = NEEDED

PROBES = PROBE_LATENT + 'NODE_CLASS_MAPPINGS = {"ProbeLatent": ProbeLatent}\n'
KINDS = ("q8_0", "q4_1")


@pytest.fixture(scope="module")
def files(server):
    """Type -> the three files of helios-tiny in ComfyUI's folders, and their places."""
    found = {}
    for kind in KINDS:
        made = convert(TINY, server.base / f"tiny-{kind}", form="gguf", kind=kind)
        for path in made:
            target = server.base / "models" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            found.setdefault(kind, []).append(path.rename(target))
    return found


def sampled(server, files, *between) -> np.ndarray:
    """One chunk's latents by nodes."""
    by = {path.parent.name: path.name for path in files}
    inputs = {"model": by["diffusion_models"], "text_encoder": by["text_encoders"], "vae": by["vae"]}
    prompt = {"0": {"class_type": "HeliosLoader", "inputs": inputs}}
    last = ["0", 0]
    for i, (kind, inputs) in enumerate(between):
        prompt[f"m{i}"] = {"class_type": kind, "inputs": {**inputs, "model": last}}
        last = [f"m{i}", 0]
    prompt["t"] = {"class_type": "T5Encode", "inputs": {"text": "a red circle", "text_encoder": ["0", 1]}}
    prompt["h"] = {"class_type": "HistoryMemory", "inputs": {"model": last, "width": 64, "height": 64}}
    inputs = {"model": last, "positive": ["t", 0], "history": ["h", 0], "seed": 0, "steps": "auto"}
    prompt["s"] = {"class_type": "DMDPyramidSample", "inputs": inputs}
    prompt["p"] = {"class_type": "ProbeLatent", "inputs": {"latent": ["s", 0], "name": "chunk"}}
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return np.load(server.base / "output" / "chunk.npy")


def opened(files):
    by = {path.parent.name: path for path in files}
    return load(by["diffusion_models"], text_encoder=by["text_encoders"], vae=by["vae"], backend="torch")


def own(helios) -> np.ndarray:
    """The same by the core alone."""
    with torch.inference_mode():
        text = helios.text("a red circle")
        *_, step = helios.sample(helios.history(64, 64), text, seed=0)
        return helios.denormalise(step.latent).numpy()


def error(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_latents_as_the_command_line_to_bfloat16s_rounding(server, files, kind):
    found = error(sampled(server, files[kind]), own(opened(files[kind])))
    print(f"{kind} on ComfyUI's engine and on ours: relative difference {found:.4f}")
    assert found < 0.02


def test_loras_are_added_to_the_widened_weights(server, files):
    helios, rng, tensors = opened(files["q4_1"]), np.random.default_rng(0), {}
    for name, shape in helios.backend.shapes(helios.config.transformer).items():
        if len(shape) == 2 and name.startswith("blocks.") and name.endswith(".weight"):
            down, up = (rng.standard_normal(size).astype(np.float32) for size in ((4, shape[1]), (shape[0], 4)))
            path = f"transformer.{name.removesuffix('.weight')}"
            tensors |= {f"{path}.lora_A.weight": down * 0.05, f"{path}.lora_B.weight": up * 0.3}
    (server.base / "models" / "loras").mkdir(exist_ok=True)
    save_file(tensors, server.base / "models" / "loras" / "x.safetensors")
    plain = sampled(server, files["q4_1"])
    wanted = own(with_loras(helios, [(server.base / "models" / "loras" / "x.safetensors", 1.0)]))
    lora = {"lora_name": "x.safetensors", "strength_model": 1.0}
    found = sampled(server, files["q4_1"], ("LoraLoaderModelOnly", lora))
    assert error(found, wanted) < 0.03 < error(plain, wanted)
    assert error(sampled(server, files["q4_1"]), plain) < 1e-6, "the blocks were never patched"


def test_the_loader_lists_them(server, files):
    inputs = json.loads(server.get("/object_info/HeliosLoader"))["HeliosLoader"]["input"]
    assert "tiny-q8_0_transformer.gguf" in json.dumps(inputs["required"]["model"])
    assert "tiny-q8_0_text_encoder.gguf" in json.dumps(inputs["optional"]["text_encoder"])
