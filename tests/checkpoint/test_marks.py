"""ComfyUI's quantised layers: read as what they stand for by both backends, in files and folders; broken ones named."""

import json
import shutil

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from support.comfy_quants import FORMS, random_layer, write
from support.parts import randomise

SIZES = dict(num_attention_heads=2, ffn_dim=512, num_layers=2, text_dim=16, freq_dim=8)
CONFIG = ModelConfig(transformer=TransformerConfig(**SIZES), vae=VAEConfig())
LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ffn.net.0.proj", "ffn.net.2")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in randomise(HeliosTransformer(CONFIG.transformer)).items()}


def in_form(state, form, layers=LAYERS, seed=0):
    """The state with block 0's layers in a form: tensors, their dtypes, and what the weights stand for."""
    rng, tensors, dtypes, meant = np.random.default_rng(seed), dict(state), {}, {}
    for layer in (f"blocks.0.{layer}" for layer in layers):
        parts, kinds, weight = random_layer(form, rng, *state[f"{layer}.weight"].shape)
        tensors |= {f"{layer}.{name}": value for name, value in parts.items()}
        dtypes |= {f"{layer}.{name}": dtype for name, dtype in kinds.items()}
        meant[f"{layer}.weight"] = weight
    return tensors, dtypes, meant


def close(found, meant, form) -> bool:
    """Equal where a number is one product or none of several roundings; else to float32's rounding."""
    found = np.asarray(found, np.float64)
    plain = not any(word in form for word in ("convrot", "asym", "awq", "smoothed"))
    exact = np.array_equal(found.astype(np.float32), meant.astype(np.float32)) if plain else True
    return exact and np.abs(found - meant).max() < 2e-6 * np.abs(meant).max()


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_what_the_form_stands_for(state, form, tmp_path):
    tensors, dtypes, meant = in_form(state, form)
    write(tmp_path / "x.safetensors", tensors, dtypes)
    source = open_part(tmp_path / "x.safetensors", "transformer")
    assert source.tensors["blocks.1.ffn.net.2.weight"].form is None
    for name, weight in meant.items():
        assert source.tensors[name].shape == weight.shape
        assert close(widen(source.tensors[name]).numpy(), weight, form), name
    kept = load_transformer(source, CONFIG, dtype="auto", device="cpu")
    wide = load_transformer(source, CONFIG, dtype="fp32", device="cpu")
    for name in ("attn1.to_out.0", "ffn.net.0.proj", "ffn.net.2"):
        one, other = (model.blocks[0].get_submodule(name).weight for model in (kept, wide))
        assert (one.float() - other).norm() < 3e-3 * other.norm(), name
    x = torch.randn(1, 5, 256)
    one, other = (model.blocks[0].attn1.project(x.to(model.dtype))[1].float() for model in (kept, wide))
    assert (one - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize("form", FORMS)
def test_mlx_reads_the_same(state, form, tmp_path):
    files = pytest.importorskip("helios_video.helios_core.backends.mlx.files")
    tensors, dtypes, meant = in_form(state, form, LAYERS[3:5])
    write(tmp_path / "x.safetensors", tensors, dtypes)
    source = open_part(tmp_path / "x.safetensors", "transformer")
    for name, weight in meant.items():
        assert close(np.array(files.widen(source.tensors[name])), weight, form), name


def as_metadata(tensors):
    """The marks moved from tensors into the header's metadata."""
    said = {name.removesuffix(".comfy_quant"): bytes(v) for name, v in tensors.items() if name.endswith(".comfy_quant")}
    layers = {name: json.loads(text) for name, text in said.items()}
    kept = {name: value for name, value in tensors.items() if not name.endswith(".comfy_quant")}
    return kept, {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_marks_in_the_metadata_of_a_file(state, prefix, tmp_path):
    tensors, dtypes, meant = in_form(state, "int8 convrot")
    tensors, dtypes = ({prefix + name: value for name, value in d.items()} for d in (tensors, dtypes))
    for said in (as_metadata(tensors), as_metadata({n.removeprefix(prefix): v for n, v in tensors.items()})):
        write(tmp_path / "x.safetensors", tensors if said is None else as_metadata(tensors)[0], dtypes, said[1])
        source = open_part(tmp_path / "x.safetensors", "transformer")
        for name, weight in meant.items():
            assert close(widen(source.tensors[name]).numpy(), weight, "int8 convrot")


def test_a_folders_shards_say_it_too(state, tmp_path):
    """They were read as plain int8, and gave noise without a word."""
    tensors, dtypes, meant = in_form(state, "int8 convrot")
    tensors, metadata = as_metadata(tensors)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(SIZES))
    write(tmp_path / "transformer" / "x.safetensors", tensors, dtypes, metadata)
    source = open_part(tmp_path, "transformer")
    assert source.quantised == "int8_tensorwise (convrot)"
    for name, weight in meant.items():
        assert close(widen(source.tensors[name]).numpy(), weight, "int8 convrot")
    write(tmp_path / "transformer" / "x.safetensors", tensors, dtypes)
    with pytest.raises(ValueError, match="nothing in the file says in which of ComfyUI's forms"):
        open_part(tmp_path, "transformer")
    shutil.rmtree(tmp_path / "transformer")


def test_layers_in_several_forms(state, tmp_path):
    """Queries in one form, keys in another, values plain: each is what it is, and plain ones stay plain."""
    first, dtypes, meant = in_form(state, "nvfp4", LAYERS[:1])
    second, more, also = in_form(state, "mxfp8", LAYERS[1:2], seed=1)
    changed = {name: value for name, value in second.items() if name not in state or ".to_k." in name}
    write(tmp_path / "x.safetensors", first | changed, dtypes | more)
    source = open_part(tmp_path / "x.safetensors", "transformer")
    assert source.quantised == "nvfp4, mxfp8" or source.quantised == "mxfp8, nvfp4"
    model = load_transformer(source, CONFIG, dtype="auto", device="cpu")
    attention = model.blocks[0].attn1
    for name, weight in (meant | also).items():
        found = attention.get_submodule(name.split(".")[3]).weight
        assert np.abs(found.float().numpy() - weight).max() < 0.01 * np.abs(weight).max()
    plain = state["blocks.0.attn1.to_v.weight"]
    assert torch.equal(attention.to_v.weight, torch.from_numpy(plain).to(attention.to_v.weight.dtype))
    x = torch.randn(1, 5, 256).to(model.dtype)
    (query, key), value = attention.project(x)
    assert torch.equal(query[:, :, 0], attention.to_q(x)) and torch.equal(value, attention.to_v(x))
