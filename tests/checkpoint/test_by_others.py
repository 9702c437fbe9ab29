"""Whole networks in the forms of others, as their own packages read them: GGUF's types, and awq, which nobody's package
makes (by comfy_kitchen's dequantisation)."""

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.backends.torch.gguf import BlockLinear
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint import is_quantised, stored_tensors
from helios_video.helios_core.checkpoint.gguf import BLOCKS
from helios_video.helios_core.checkpoint.headers import read_header
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from helios_video.helios_core.convert import gguf_quants
from support.comfy_quants import random_layer
from support.comfy_quants import write as write_layers
from support.gguf import TYPES, noise, package
from support.quant import build

SIZES = dict(num_attention_heads=2, attention_head_dim=128, rope_dim=(44, 42, 42), ffn_dim=1024, num_layers=6)
SIZES |= dict(text_dim=64, freq_dim=32)
CONFIG = ModelConfig(transformer=TransformerConfig(**SIZES), vae=VAEConfig())


@pytest.fixture(scope="module")
def model():
    return build(**SIZES)


def quantised(kind: str, weight: np.ndarray) -> np.ndarray:
    """Rows of blocks by the package, by ours where it makes none, of random numbers of that size where neither does."""
    try:
        return package.quantize(weight, TYPES[kind])
    except NotImplementedError:
        pass
    if kind.lower() in gguf_quants.KINDS:
        return gguf_quants.quantise(weight, kind.lower()).reshape(len(weight), -1)
    return noise(kind, *weight.shape)


def write(path, state: dict, kind: str) -> dict:
    """A file of the network; what the package makes of its matrices."""
    writer, meant = package.GGUFWriter(path, "wan"), {}
    for name, value in state.items():
        value = np.ascontiguousarray(value.numpy())
        if is_quantised(name):
            data = quantised(kind, value)
            writer.add_tensor(name, data, raw_dtype=TYPES[kind])
            meant[name] = torch.from_numpy(package.dequantize(data, TYPES[kind]))
        else:
            writer.add_tensor(name, value)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return meant


@pytest.mark.parametrize("kind", list(BLOCKS))
def test_a_network_in_each_type_of_gguf(kind, model, tmp_path):
    """What is kept in blocks computes what the package's numbers do, and each block's weights are the package's."""
    plain, run = model
    meant = write(tmp_path / "x.gguf", plain.state_dict(), kind)
    source = open_part(tmp_path / "x.gguf", "transformer")
    errors = {}
    for name, weight in meant.items():
        assert torch.equal(widen(source.tensors[name]), weight), name
        old, block = plain.get_parameter(name).detach(), int(name.split(".")[1])
        errors[block] = max(errors.get(block, 0), float((weight - old).norm() / old.norm()))
    wide = HeliosTransformer(CONFIG.transformer).requires_grad_(False).eval()
    wide.load_state_dict(plain.state_dict() | meant)
    kept = load_transformer(source, CONFIG, dtype="auto", device="cpu")
    assert any(isinstance(layer, BlockLinear) for layer in kept.modules())
    found, wanted, exact = run(kept), run(wide), run(plain)
    assert (found - wanted).norm() / wanted.norm() < 2e-5
    if float(np.max(list(errors.values()))) < 1:  # else they are random blocks
        print(f"\n{kind}: weights by block {', '.join(f'{errors[b]:.4f}' for b in sorted(errors))};", end=" ")
        print(f"a forward {float((found - exact).norm() / exact.norm()):.4f}")


def test_awq_is_what_comfy_kitchen_makes_of_it(tmp_path):
    kitchen = pytest.importorskip("comfy_kitchen.tensor")
    parts, kinds, _ = random_layer("awq_w4a16", np.random.default_rng(0), 96, 256)
    write_layers(tmp_path / "x.safetensors", {f"l.{name}": value for name, value in parts.items()}, kinds)
    found = read_header(tmp_path / "x.safetensors")
    stored = stored_tensors(tmp_path / "x.safetensors", "vae", {n: n for n in found}, found, {})["l.weight"]
    scale, zeros = (torch.from_numpy(parts[name]) for name in ("weight_scale", "weight_zeros"))
    layout = kitchen.TensorCoreAWQW4A16Layout
    about = layout.Params(scale=scale, orig_dtype=torch.float32, orig_shape=(96, 256), zeros=zeros, group_size=64)
    wanted = layout.dequantize(torch.from_numpy(parts["weight"].copy()), about)
    assert torch.equal(widen(stored), wanted)
