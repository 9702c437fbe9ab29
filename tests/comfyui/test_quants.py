"""helios-tiny in ComfyUI's quantised forms, written by comfy_kitchen: weights equal to its own dequantisation, whole
videos from them, and in the real server on ComfyUI's own kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.checkpoint import is_quantised
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.convert import convert
from helios_video.helios_core.pipeline import TINY
from safetensors.torch import load_file
from support.comfyui import COMFYUI, NEEDED, PYTHON, messages

pytestmark = NEEDED

WRITER = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
source, out, pattern = sys.argv[2:5]
sys.argv = ["writer", "--cpu"]
import comfy.quant_ops as known
from comfy_kitchen.tensor import QuantizedTensor
from safetensors import safe_open
from safetensors.torch import save_file
import re

ROTATED = {"per_channel": True, "convrot": True, "convrot_groupsize": 16}
FORMS = {
    "float8_e4m3fn": ("float8_e4m3fn", {}, {"scale": "recalculate"}),
    "float8_e5m2": ("float8_e5m2", {"full_precision_matrix_mult": True}, {"scale": "recalculate"}),
    "int8": ("int8_tensorwise", {}, {}),
    "int8 by rows": ("int8_tensorwise", {}, {"per_channel": True}),
    "int8 convrot": ("int8_tensorwise", {"convrot": True, "convrot_groupsize": 16}, ROTATED),
    "nvfp4": ("nvfp4", {}, {}),
    "mxfp8": ("mxfp8", {}, {}),
    "convrot_w4a4": ("convrot_w4a4", {"convrot_groupsize": 64}, {"convrot_groupsize": 64}),
    "asym_w4a8_int8": ("asym_w4a8_int8", {"convrot_groupsize": 16}, {"convrot_groupsize": 16}),
}
with safe_open(source, "pt") as file:
    metadata, plain = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
print(known.ck.__file__)
for name, (form, said, how) in FORMS.items():
    state, meant = dict(plain), {}
    for key, weight in plain.items():
        if not re.search(pattern, key) or (form == "convrot_w4a4" and weight.shape[1] % 64):
            continue
        quantised = QuantizedTensor.from_float(weight.float(), known.QUANT_ALGOS[form]["comfy_tensor_layout"], **how)
        state |= quantised.state_dict(key)
        text = json.dumps({"format": form, **said}).encode()
        state[key.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
        meant[key] = quantised.dequantize().contiguous()
    save_file(state, f"{out}/{name}.safetensors", metadata)
    save_file(meant, f"{out}/{name}.meant.safetensors")
"""
PATTERN = r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.net\.(0\.proj|2))\.weight$"
FORMS = ("float8_e4m3fn", "float8_e5m2", "int8", "int8 by rows", "int8 convrot", "nvfp4", "mxfp8")
FORMS += ("convrot_w4a4", "asym_w4a8_int8")
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of helios-tiny in every form."""
    folder = tmp_path_factory.mktemp("quants")
    tiny = load(TINY, backend="torch").checkpoint.path
    (plain,) = convert(tiny, folder / "plain.safetensors")
    (folder / "writer.py").write_text(WRITER)
    command = [PYTHON, folder / "writer.py", COMFYUI, plain, folder, PATTERN]
    done = subprocess.run(command, capture_output=True, text=True, cwd=COMFYUI, env=os.environ | {"PYTHONPATH": ""})
    if "No module named 'comfy.quant_ops'" in done.stderr or "QUANT_ALGOS" in done.stderr:
        pytest.skip("this ComfyUI has no quantised forms")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def error(a, b) -> float:
    a, b = (torch.as_tensor(x).double().numpy() for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def sampled(helios, seed: int = 0) -> np.ndarray:
    with torch.inference_mode():
        text = helios.text("a red circle moving left")
        *_, step = helios.sample(helios.history(64, 64), text, seed=seed)
        return helios.denormalise(step.latent).numpy()


@pytest.mark.parametrize("form", FORMS)
def test_weights_equal_comfy_kitchens_own(written, form):
    """To the bit, but for a rotation's sums, which are taken in another order."""
    source = open_part(written / f"{form}.safetensors", "transformer")
    plain, worst = open_part(written / "plain.safetensors", "transformer"), {}
    meant = {k.removeprefix(PREFIX): v for k, v in load_file(written / f"{form}.meant.safetensors").items()}
    assert len(meant) >= 4 and all(is_quantised(name) for name in meant)
    for name, weight in meant.items():
        found, block = widen(source.tensors[name]), int(name.split(".")[1])
        if "convrot" in form or "asym" in form:
            assert error(found, weight) < 3e-7, name
        else:
            assert torch.equal(found, weight), name
        worst[block] = max(worst.get(block, 0), error(found, widen(plain.tensors[name])))
    print(f"\n{form}: relative error of weights by block " + ", ".join(f"{worst[b]:.4f}" for b in sorted(worst)))


@pytest.mark.parametrize("form", FORMS)
def test_a_video_from_each(written, form, tmp_path):
    """As it is kept and widened: nearly the same video; its distance from the original is said."""
    exact = sampled(load(written / "plain.safetensors", backend="torch", weight_dtype="fp32"))
    wide = sampled(load(written / f"{form}.safetensors", backend="torch", weight_dtype="fp32"))
    kept = sampled(load(written / f"{form}.safetensors", backend="torch"))
    print(f"\n{form}: a chunk's relative error {error(wide, exact):.4f}; kept as it is {error(kept, exact):.4f}")
    assert error(wide, exact) < 0.7 and error(kept, wide) < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_saved_again_it_is_equal(written, form, tmp_path):
    """To a folder and back into a file."""
    convert(written / f"{form}.safetensors", tmp_path / "folder")
    (again,) = convert(tmp_path / "folder", tmp_path / "again.safetensors")
    before, after = load_file(written / f"{form}.safetensors"), load_file(again)
    assert set(before) == set(after)
    for name, value in before.items():
        assert value.dtype == after[name].dtype and value.shape == after[name].shape, name
        assert torch.equal(value.reshape(-1).view(torch.uint8), after[name].reshape(-1).view(torch.uint8)), name


PROBES = """
import numpy, os, folder_paths


class ProbeLatent:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"latent": ("LATENT",), "model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "keep", "probes", True

    def keep(self, latent, model):
        numpy.save(os.path.join(folder_paths.get_output_directory(), "chunk"), latent["samples"].numpy())
        layers = model.model.diffusion_model.blocks[0].ffn.net
        weight = layers[2].weight
        print("PROBE", type(layers[2]).__name__, type(weight).__name__, getattr(layers[2], "quant_format", None),
              getattr(layers[2], "_full_precision_mm", None), flush=True)
        return {}


NODE_CLASS_MAPPINGS = {"ProbeLatent": ProbeLatent}
"""


@pytest.mark.parametrize("form", FORMS)
def test_in_the_server_on_its_own_kernels(server, written, form):
    """ComfyUI multiplies as it does for its own models: inputs rounded too, so the error is of the form's size."""
    folder = server.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    file = form.replace(" ", "_") + ".safetensors"
    if not (folder / file).exists():
        os.link(written / f"{form}.safetensors", folder / file)
    prompt = {"0": {"class_type": "HeliosLoader", "inputs": {"model": file}}}
    prompt["t"] = {
        "class_type": "T5Encode",
        "inputs": {"text": "a red circle moving left", "text_encoder": ["0", 1]},
    }
    prompt["h"] = {"class_type": "HistoryMemory", "inputs": {"model": ["0", 0], "width": 64, "height": 64}}
    inputs = {"model": ["0", 0], "positive": ["t", 0], "history": ["h", 0], "seed": 0, "steps": "auto"}
    prompt["s"] = {"class_type": "DMDPyramidSample", "inputs": inputs}
    prompt["p"] = {"class_type": "ProbeLatent", "inputs": {"latent": ["s", 0], "model": ["0", 0]}}
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    found = np.load(server.base / "output" / "chunk.npy")
    wanted = sampled(load(written / f"{form}.safetensors", backend="torch"))
    said = [line for line in (server.base / "log.txt").read_text().splitlines() if line.startswith("PROBE ")][-1]
    print(f"\n{form}: {said}; from the command line's by {error(found, wanted):.4f}", file=sys.stderr)
    assert "HostLinear" in said and "QuantizedTensor" in said
    assert error(found, wanted) < 0.35
