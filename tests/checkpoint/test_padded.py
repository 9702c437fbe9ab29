"""nvfp4 and mxfp8 of layers that are not whole tiles: what was filled up is taken off, by both backends."""

import json

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint import unpack, unpacked
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from helios_video.helios_core.convert import layouts
from support.comfy_quants import random_layer, write
from support.parts import randomise

SIZES = dict(num_attention_heads=2, attention_head_dim=12, rope_dim=(4, 4, 4), ffn_dim=40, num_layers=2)
SIZES |= dict(text_dim=16, freq_dim=8)
CONFIG = ModelConfig(transformer=TransformerConfig(**SIZES), vae=VAEConfig())
LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_k", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2")
TILES = {"nvfp4": 16, "mxfp8": 32}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in randomise(HeliosTransformer(CONFIG.transformer)).items()}


def metadata() -> dict:
    return {"helios": json.dumps({"transformer/config.json": json.dumps(SIZES)})}


def filled(state, form):
    """The state with block 0's layers in a form of whole tiles, and what the weights stand for."""
    rng, tensors, dtypes, meant = np.random.default_rng(0), dict(state), {}, {}
    for layer in (f"blocks.0.{layer}" for layer in LAYERS):
        rows, columns = state[f"{layer}.weight"].shape
        parts, kinds, weight = random_layer(form, rng, *(-(-n // TILES[form]) * TILES[form] for n in (rows, columns)))
        tensors |= {f"{layer}.{name}": value for name, value in parts.items()}
        dtypes |= {f"{layer}.{name}": dtype for name, dtype in kinds.items()}
        meant[f"{layer}.weight"] = weight[:rows, :columns]
    return tensors, dtypes, meant


@pytest.mark.parametrize("form", TILES)
def test_what_was_filled_up_is_taken_off(state, form, tmp_path):
    tensors, dtypes, meant = filled(state, form)
    write(tmp_path / "x.safetensors", tensors, dtypes, metadata())
    source = open_part(tmp_path / "x.safetensors", "transformer")
    kept = load_transformer(source, CONFIG, dtype="auto", device="cpu")
    for name, weight in meant.items():
        stored, wanted = source.tensors[name], weight.astype(np.float32)
        assert stored.shape == wanted.shape != stored.filled
        assert np.array_equal(widen(stored).numpy(), wanted)
        assert np.array_equal(unpacked.widen(unpack(stored), stored), wanted)  # as MLX reads it
    for layer in LAYERS[3:]:
        wide = kept.blocks[0].get_submodule(layer).weight
        assert np.abs(wide.float().numpy() - meant[f"blocks.0.{layer}.weight"]).max() < 0.01


@pytest.mark.parametrize("form", TILES)
def test_it_is_copied_as_it_is(state, form, tmp_path):
    tensors, dtypes, _ = filled(state, form)
    write(tmp_path / "x.safetensors", tensors, dtypes, metadata())
    stored = open_part(tmp_path / "x.safetensors", "transformer").tensors["blocks.0.ffn.net.2.weight"]
    copied = b"".join(bytes(chunk) for chunk in layouts.read_chunks(stored.codes))
    assert copied == np.asarray(tensors["blocks.0.ffn.net.2.weight"]).tobytes()


@pytest.mark.parametrize("form", TILES)
def test_what_is_no_filling_is_refused(state, form, tmp_path):
    """A tile too many is another shape."""
    tensors, dtypes, _ = filled(state, form)
    rng, tile = np.random.default_rng(1), TILES[form]
    parts, kinds, _ = random_layer(form, rng, 4 * tile, 4 * tile)
    tensors |= {f"blocks.0.ffn.net.2.{name}": value for name, value in parts.items()}
    write(tmp_path / "x.safetensors", tensors, dtypes, metadata())
    source = open_part(tmp_path / "x.safetensors", "transformer")
    with pytest.raises(ValueError, match=r"blocks\.0\.ffn\.net\.2\.weight"):
        load_transformer(source, CONFIG, dtype="auto", device="cpu")


@pytest.mark.parametrize("form,layout", [("nvfp4", "TensorCoreNVFP4Layout"), ("mxfp8", "TensorCoreMXFP8Layout")])
def test_comfy_kitchen_fills_so(state, form, layout, tmp_path):
    kitchen = pytest.importorskip("comfy_kitchen.tensor")
    from safetensors.torch import save_file

    tensors, meant = {name: torch.from_numpy(value) for name, value in state.items()}, {}
    for name in (f"blocks.0.{layer}.weight" for layer in LAYERS):
        made = kitchen.QuantizedTensor.from_float(tensors[name].float(), layout)
        tensors |= made.state_dict(name)
        said = json.dumps({"format": form}).encode()
        tensors[name.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
        meant[name] = made.dequantize()
    save_file(tensors, tmp_path / "x.safetensors", metadata())
    source = open_part(tmp_path / "x.safetensors", "transformer")
    for name, weight in meant.items():
        assert torch.equal(widen(source.tensors[name]), weight.float()), name
