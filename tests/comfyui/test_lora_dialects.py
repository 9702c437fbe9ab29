"""LoRA files of every form and dialect through ComfyUI's own loader and through HeliosLora: each weight, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.lora.names import wan_name
from safetensors.torch import save_file
from support.comfyui import NEEDED, messages
from support.lora_forms import ANY, in_form, stretched, with_lengths
from support.loras import error, mixed, peft

pytestmark = NEEDED

PROBES = """
import comfy.lora, folder_paths, os, torch
from safetensors.torch import save_file


class ProbeWeights:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "name": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "keep", "probes", True

    def keep(self, model, name):
        found, state = {}, model.model.state_dict()
        for key, patches in model.patches.items():
            weight = state[key].to("cpu", torch.float32, copy=True)
            found[key.removeprefix("diffusion_model.")] = comfy.lora.calculate_weight(patches, weight, key)
        save_file(found, os.path.join(folder_paths.get_output_directory(), name + ".safetensors"))
        return {}


NODE_CLASS_MAPPINGS = {"ProbeWeights": ProbeWeights}
"""

SAME = 1e-5
ENDS = ("attn1.to_q", "attn2.to_out.0", "ffn.net.0.proj")
LAYERS = [f"blocks.{i}.{end}" for i in (0, 3) for end in ENDS] + ["condition_embedder.time_proj"]


@pytest.fixture(scope="module")
def state():
    """helios-tiny's published weights."""
    tiny = load("helios-tiny", backend="torch", weight_dtype="fp32")
    found = dict(tiny.parts.transformer.state_dict())
    for name in [name for name in found if ".to_qkv." in name]:
        for part, value in zip(("to_q", "to_k", "to_v"), found.pop(name).chunk(3), strict=True):
            found[name.replace("to_qkv", part)] = value.clone()
    return found


@pytest.fixture(scope="module")
def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def patched(server, loader: str, tensors: dict, strength=0.7, **inputs) -> dict:
    """The weights that a file changes, as ComfyUI computes them."""
    from safetensors.torch import load_file

    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    patched.count += 1
    name = f"{patched.count}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    own = {"lora": name, "strength": strength, **inputs}
    core = {"lora_name": name, "strength_model": strength}
    prompt = {
        "0": {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny", "weight_dtype": "fp32"}},
        "l": {"class_type": loader, "inputs": {"model": ["0", 0], **(own if loader == "HeliosLora" else core)}},
        "p": {"class_type": "ProbeWeights", "inputs": {"model": ["l", 0], "name": name}},
    }
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return load_file(server.base / "output" / f"{name}.safetensors")


patched.count = 0


def check(
    got: dict, state: dict, changes: dict, strength=0.7, of=lambda old, change, strength: old + strength * change
):
    assert set(got) == {f"{layer}.weight" for layer in changes}
    worst = 0.0
    for layer, change in changes.items():
        old = state[f"{layer}.weight"].double()
        want = of(old, change, strength)
        worst = max(worst, error(got[f"{layer}.weight"].double(), want))
        assert error(old, want) > 1e-3
    assert worst < SAME, worst
    return worst


def pairs_of(shapes, seed=1):
    rng = torch.Generator().manual_seed(seed)
    sizes = {layer: shapes[f"{layer}.weight"] for layer in LAYERS}
    return {
        layer: (torch.randn(4, i, generator=rng) * 0.1, torch.randn(o, 4, generator=rng) * 0.3)
        for layer, (o, i) in sizes.items()
    }


DIALECTS = {
    "kohya, some dots": ("lora_unet_", ("lora_down", "lora_up"), mixed(1, wan_name)),
    "bare, some dots": ("", ("lora_down", "lora_up"), mixed(1, wan_name)),
    "lycoris, some dots": ("lycoris_", ("lora_down", "lora_up"), mixed(2)),
    "transformer, some dots": ("lora_transformer_", ("lora_A", "lora_B"), mixed(2)),
    "diffusers": ("transformer.", ("lora_A", "lora_B"), lambda name: name),
    "adapter name": ("base_model.model.", ("lora_A.default", "lora_B.default"), lambda name: name),
}


@pytest.mark.parametrize("loader", ["LoraLoaderModelOnly", "HeliosLora"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(server, state, shapes, dialect, loader):
    pairs = pairs_of(shapes)
    prefix, sides, name = DIALECTS[dialect]
    changes = {layer: up.double() @ down.double() for layer, (down, up) in pairs.items()}
    check(patched(server, loader, peft(pairs, prefix, sides, name)), state, changes)


@pytest.mark.parametrize("loader", ["LoraLoaderModelOnly", "HeliosLora"])
@pytest.mark.parametrize("form", ANY)
def test_forms(server, state, shapes, form, loader):
    tensors, changes = in_form(ANY[form], LAYERS, shapes=shapes)
    print(f"{form} by {loader}: {check(patched(server, loader, tensors), state, changes):.1e}")


@pytest.mark.parametrize("loader", ["LoraLoaderModelOnly", "HeliosLora"])
@pytest.mark.parametrize("kind", ["rows", "columns", "peft"])
@pytest.mark.parametrize("form", ["locon", "loha", "lokr"])
def test_dora(server, state, shapes, form, kind, loader):
    """ComfyUI's own loader divides rows by the lengths of the weight as it was, not of the changed one."""
    tensors, changes = in_form(ANY[form], LAYERS, shapes=shapes)
    tensors, lengths = with_lengths(tensors, LAYERS, kind, shapes=shapes)
    layers = {id(change): layer for layer, change in changes.items()}

    def of(old, change, strength):
        length = lengths[layers[id(change)]]
        if loader == "HeliosLora" or kind == "columns":
            return stretched(old, change, length, strength)
        new = (old + change) * length.double() / old.norm(dim=1, keepdim=True)
        return old + strength * (new - old)

    print(f"{form} DoRA {kind} by {loader}: {check(patched(server, loader, tensors), state, changes, of=of):.1e}")


def test_strength_per_block(server, state, shapes):
    pairs = pairs_of(shapes)
    got = patched(server, "HeliosLora", peft(pairs), 0.5, blocks="0=2, 3=0, other=-1")
    changes = {layer: up.double() @ down.double() for layer, (down, up) in pairs.items()}
    factors = {layer: 2 if layer.startswith("blocks.0") else -1 for layer in changes if "blocks.3" not in layer}
    check(got, state, {layer: factor * changes[layer] for layer, factor in factors.items()}, 0.5)


def test_what_does_not_fit_is_said_in_one_line_by_both(server, state, shapes):
    extra = {f"diffusion_model.blocks.{i}.cross_attn.k_img": (torch.ones(2, 160), torch.ones(160, 2)) for i in range(4)}
    pairs = pairs_of(shapes)
    changes = {layer: up.double() @ down.double() for layer, (down, up) in pairs.items()}
    check(patched(server, "LoraLoaderModelOnly", peft(pairs) | peft(extra, "")), state, changes)
    log = (server.base / "log.txt").read_text()
    said = [line for line in log.splitlines() if "k_img" in line]
    assert len(said) == 1 and "Helios has no layer, or ComfyUI no form, for" in said[0], said
    assert np.count_nonzero(["lora key not loaded" in line for line in log.splitlines()]) == 0
