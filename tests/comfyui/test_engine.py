"""The video model on ComfyUI's own engine: what ComfyUI's nodes do to its MODEL, and what it says of others."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.lora.names import wan_name
from helios_video.helios_core.pipeline import TINY
from helios_video.helios_core.with_loras import with_loras
from safetensors.numpy import load_file, save_file
from support import lora_forms
from support.comfyui import NEEDED, PROBE_LATENT, messages

pytestmark = NEEDED

PROBES = (
    PROBE_LATENT
    + """
import comfy.model_patcher, torch


class ProbeOther:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "make", "probes"

    def make(self):
        class SDXL(torch.nn.Module):
            pass
        here = torch.device("cpu")
        return (comfy.model_patcher.ModelPatcher(SDXL(), here, here),)


class ProbeAttention:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "probes"

    def patch(self, model):
        def override(function, *args, **kwargs):
            print("PROBE attention", args[0].shape[1], flush=True)
            assert kwargs.get("mask") is None  # SageAttention's kernels would drop it without a word
            return function(*args, **kwargs)

        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        model.model_options["sampler_cfg_function"] = override
        return (model,)


class ProbeWrapper(ProbeAttention):
    def patch(self, model):
        model = model.clone()
        model.add_wrapper_with_key("apply_model", "probe", lambda execute, *args, **kwargs: execute(*args, **kwargs))
        return (model,)


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (ProbeLatent, ProbeOther, ProbeAttention, ProbeWrapper)}
"""
)


def chunk(*between, weight_dtype="fp32", seed=0) -> dict:
    """One chunk, kept as chunk.npy; between: (class, inputs) of nodes that the MODEL goes through."""
    prompt = {"0": {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny", "weight_dtype": weight_dtype}}}
    last = ["0", 0]
    for i, (kind, inputs) in enumerate(between):
        prompt[f"m{i}"] = {
            "class_type": kind,
            "inputs": {**inputs, **({} if kind == "ProbeOther" else {"model": last})},
        }
        last = [f"m{i}", 0]
    text = {"text": "a red circle moving left", "text_encoder": ["0", 1]}
    prompt["t"] = {"class_type": "T5Encode", "inputs": text}
    prompt["h"] = {"class_type": "HistoryMemory", "inputs": {"model": last, "width": 64, "height": 64}}
    inputs = {"model": last, "positive": ["t", 0], "history": ["h", 0], "seed": seed, "steps": "auto"}
    prompt["s"] = {"class_type": "DMDPyramidSample", "inputs": inputs}
    prompt["p"] = {"class_type": "ProbeLatent", "inputs": {"latent": ["s", 0], "name": "chunk"}}
    return prompt


def idle(server) -> bool:
    return json.loads(server.get("/prompt"))["exec_info"]["queue_remaining"] == 0


def sampled(server, prompt: dict) -> np.ndarray:
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return np.load(server.base / "output" / "chunk.npy")


def own(helios, seed: int = 0) -> np.ndarray:
    """The same by the core alone."""
    with torch.inference_mode():
        text = helios.text("a red circle moving left")
        *_, step = helios.sample(helios.history(64, 64), text, seed=seed)
        return helios.denormalise(step.latent).numpy()


def error(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def tiny():
    return load("helios-tiny", backend="torch", weight_dtype="fp32")


@pytest.fixture(scope="module")
def loras(server, tiny):
    """Files of ComfyUI's loras folder in Wan's, musubi's and PEFT's forms, by name."""
    found = {}
    for seed, form in enumerate(("wan", "musubi", "peft")):
        rng, tensors = np.random.default_rng(seed), {}
        for name, shape in tiny.backend.shapes(tiny.config.transformer).items():
            if len(shape) == 2 and name.startswith("blocks.") and name.endswith(".weight"):
                path = name.removesuffix(".weight")
                down, up = (rng.standard_normal(size).astype(np.float32) for size in ((4, shape[1]), (shape[0], 4)))
                tensors |= written(form, path, down * 0.05, up * 0.3)
        found[form] = server.base / "models" / "loras" / f"{form}.safetensors"
        found[form].parent.mkdir(exist_ok=True)
        save_file(tensors, found[form])
    return found


def written(form: str, path: str, down, up) -> dict:
    wan = wan_name(path)
    if form == "wan":
        return {f"diffusion_model.{wan}.lora_A.weight": down, f"diffusion_model.{wan}.lora_B.weight": up}
    if form == "peft":
        return {f"transformer.{path}.lora_A.weight": down, f"transformer.{path}.lora_B.weight": up}
    name = f"lora_unet_{wan.replace('.', '_')}"
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.array(2, np.float32)}


def test_the_same_latents_as_the_command_line(server, tiny):
    assert error(sampled(server, chunk()), own(tiny)) < 1e-6


@pytest.mark.parametrize("dtype", ["bf16", "fp8_e4m3fn", "int8", "int4"])
def test_in_fewer_bits_it_is_the_same_to_their_rounding(server, dtype):
    assert error(sampled(server, chunk(weight_dtype=dtype)), own(load(backend="torch", weight_dtype=dtype))) < 0.02


def test_comfyuis_lora_loaders_do_what_ours_does(server, tiny, loras):
    for files in ([("wan", 1.0)], [("musubi", 0.7)], [("peft", -0.5)], [("wan", 0.5), ("musubi", 1.0)]):
        wanted = own(with_loras(tiny, [(loras[name], strength) for name, strength in files]))
        assert error(wanted, own(tiny)) > 0.02
        core = [(f"{n}.safetensors", s) for n, s in files]
        theirs = [("LoraLoaderModelOnly", {"lora_name": n, "strength_model": s}) for n, s in core]
        ours = [("HeliosLora", {"lora": n, "strength": s}) for n, s in core]
        for nodes in (theirs, ours):
            assert error(sampled(server, chunk(*nodes)), wanted) < 1e-5, nodes
    assert error(sampled(server, chunk()), own(tiny)) < 1e-6, "and afterwards the model is as it was"


def test_a_lora_on_quantised_weights(server, loras):
    wanted = own(with_loras(load(backend="torch", weight_dtype="int4"), [(loras["wan"], 1.0)]))
    nodes = [("LoraLoaderModelOnly", {"lora_name": "wan.safetensors", "strength_model": 1.0})]
    assert error(sampled(server, chunk(*nodes, weight_dtype="int4")), wanted) < 0.03
    plain = own(load(backend="torch", weight_dtype="int4"))
    assert error(sampled(server, chunk(weight_dtype="int4")), plain) < 0.02, "the codes were never patched"


def test_changes_of_whole_weights_on_quantised_weights(server, tiny):
    """A DoRA and a large LoKr: computed on the widened weights."""
    shapes = tiny.backend.shapes(tiny.config.transformer)
    layers = [f"blocks.{i}.attn2.to_v" for i in range(tiny.config.transformer.num_layers)]
    for form, lengths in (("locon", True), ("lokr_whole", False)):
        tensors, _ = lora_forms.in_form(lora_forms.ANY[form], layers, shapes=shapes)
        if lengths:
            tensors, _ = lora_forms.with_lengths(tensors, layers, "rows", shapes=shapes)
        path = server.base / "models" / "loras" / f"{form}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({key: value.contiguous().numpy() for key, value in tensors.items()}, path)
        wanted = own(with_loras(tiny, [(path, 1.0)]))
        nodes = [("HeliosLora", {"lora": path.name, "strength": 1.0})]
        assert error(sampled(server, chunk(*nodes)), wanted) < 1e-5
        assert error(sampled(server, chunk(*nodes, weight_dtype="int8")), wanted) < 0.03 < error(wanted, own(tiny)), (
            form
        )


def test_a_chosen_attention_is_used_and_what_is_not_is_said(server, tiny):
    assert error(sampled(server, chunk(("ProbeAttention", {}), seed=5)), own(tiny, 5)) < 1e-6
    log = (server.base / "log.txt").read_text()
    heads = tiny.config.transformer.num_attention_heads
    assert f"PROBE attention {heads}" in log
    assert "this MODEL carries sampler_cfg_function, which Helios does not use" in log


def test_a_compiled_model(server, tiny):
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler for torch.compile")
    compiled = sampled(server, chunk(("TorchCompileModel", {"backend": "inductor"}), seed=6))
    assert error(compiled, own(tiny, 6)) < 1e-5


def test_a_saved_model_loads_again(server, tiny, loras):
    nodes = [("LoraLoaderModelOnly", {"lora_name": "wan.safetensors", "strength_model": 1.0})]
    prompt = chunk(*nodes)
    prompt["save"] = {"class_type": "ModelSave", "inputs": {"model": ["m0", 0], "filename_prefix": "kept"}}
    wanted = sampled(server, prompt)
    (file,) = (server.base / "output").glob("kept*.safetensors")
    assert sum(key.startswith("model.diffusion_model.blocks.0.") for key in load_file(file)) > 20
    again = load(file, text_encoder=TINY, vae=TINY, backend="torch", weight_dtype="fp32")
    assert error(own(again), wanted) < 1e-5


def test_another_model_is_refused_by_name(server):
    (said,) = messages(server.run(chunk(("ProbeOther", {}))), "execution_error")
    assert "this MODEL is SDXL, not Helios; wire in that of HeliosLoader" in said["exception_message"]


def test_comfyuis_samplers_and_what_saves_a_text_encoder_are_refused_in_words(server):
    loader = {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny"}}
    text = {"class_type": "T5Encode", "inputs": {"text_encoder": ["0", 1], "text": "a red circle"}}
    latent = {"width": 64, "height": 64, "length": 33, "batch_size": 1}
    wires = {"model": ["0", 0], "positive": ["1", 0], "negative": ["1", 0], "latent_image": ["2", 0]}
    plan = {"seed": 0, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    prompt = {
        "0": loader,
        "1": text,
        "2": {"class_type": "EmptyHunyuanLatentVideo", "inputs": latent},
        "3": {"class_type": "KSampler", "inputs": {**wires, **plan}},
        "4": {"class_type": "ProbeLatent", "inputs": {"latent": ["3", 0], "name": "sampled"}},
    }
    (said,) = messages(server.run(prompt), "execution_error")
    assert said["node_id"] == "3" and "Helios DMD Pyramid Sample" in said["exception_message"]
    named = {"clip": ["0", 1], "filename_prefix": "text"}
    for kind, more in (("CLIPSave", {}), ("CheckpointSave", {"model": ["0", 0], "vae": ["0", 2]})):
        save = {"class_type": kind, "inputs": {**named, **more}}
        (said,) = messages(server.run({"0": loader, "1": save}), "execution_error")
        assert said["node_id"] == "1" and "helios convert" in said["exception_message"], kind


def test_memory_can_be_freed_between_two_chunks(server, tiny):
    for seed in (7, 8):
        assert error(sampled(server, chunk(seed=seed)), own(tiny, seed)) < 1e-6
        server.post("/free", {"unload_models": True, "free_memory": True})


@pytest.mark.parametrize("device", ["default", "cpu"])
def test_a_chosen_device(server, tiny, device):
    if "SelectModelDevice" not in json.loads(server.get("/object_info")):
        pytest.skip("this ComfyUI has no SelectModelDevice")
    assert error(sampled(server, chunk(("SelectModelDevice", {"device": device}), seed=9)), own(tiny, 9)) < 1e-6


def test_a_chunk_is_found_again_by_what_patches_the_model_and_not_under_an_unknown_wrapper(server, loras):
    """Two queues, nothing in ComfyUI's own cache: the sampler runs twice, and samples again only where it must. The
    model is loaded to sample, and only then: another prompt between them has what was freed be gone."""
    lora = [("LoraLoaderModelOnly", {"lora_name": "peft.safetensors", "strength_model": 0.25})]
    for nodes, again in ((lora, 0), ([("ProbeWrapper", {})], 1), ([("ProbeAttention", {})], 0)):
        begun = []
        for _ in range(2):
            sampled(server, chunk(*nodes, seed=11))
            begun.append((server.base / "log.txt").read_text().count("Requested to load HeliosModel"))
            server.post("/free", {"unload_models": True, "free_memory": True})
            server.wait(lambda: idle(server), "an idle server")
            time.sleep(1)  # the queue looks for what is to be freed once a second at most
        assert begun[1] - begun[0] == again, nodes


def test_comfyuis_own_prompt_node_and_lora_loader_with_clip(server, tiny, loras):
    prompt = chunk(seed=12)
    prompt["l"] = {"class_type": "LoraLoader", "inputs": {"model": ["0", 0], "clip": ["0", 1]}}
    prompt["l"]["inputs"] |= {"lora_name": "wan.safetensors", "strength_model": 0.5, "strength_clip": 1.0}
    text = {"text": "a red circle moving left", "clip": ["l", 1]}
    prompt["t"] = {"class_type": "CLIPTextEncode", "inputs": text}
    prompt["h"]["inputs"]["model"] = prompt["s"]["inputs"]["model"] = ["l", 0]
    assert error(sampled(server, prompt), own(with_loras(tiny, [(loras["wan"], 0.5)]), 12)) < 1e-5


def test_the_vae_is_saved_and_decodes_by_comfyuis_nodes(server, tiny):
    prompt = chunk(seed=13)
    prompt["d"] = {"class_type": "VAEDecode", "inputs": {"samples": ["s", 0], "vae": ["0", 2]}}
    prompt["i"] = {"class_type": "SaveImage", "inputs": {"images": ["d", 0], "filename_prefix": "frame"}}
    prompt["v"] = {"class_type": "VAESave", "inputs": {"vae": ["0", 2], "filename_prefix": "vae"}}
    sampled(server, prompt)
    assert len(list((server.base / "output").glob("frame*.png"))) == 33
    (file,) = (server.base / "output").glob("vae*.safetensors")
    assert set(load_file(file)) == set(tiny.backend.shapes(tiny.config.vae))
