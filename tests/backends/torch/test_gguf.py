"""GGUF's blocks: to the bit the gguf package's numbers, in layers of any mixture."""

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import gguf as blocks
from helios_video.helios_core.backends.torch import kernels
from helios_video.helios_core.backends.torch.files import as_float32
from helios_video.helios_core.backends.torch.layers import Linear
from helios_video.helios_core.backends.torch.offload import size
from helios_video.helios_core.checkpoint import read_metadata
from helios_video.helios_core.checkpoint.gguf import BLOCKS
from support.gguf import TYPES, noise, package, write


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_packages_numbers_to_the_bit(kind, monkeypatch):
    assert package.GGML_QUANT_SIZES[TYPES[kind]] == BLOCKS[kind]
    data = noise(kind, 24, 512)
    wanted = package.dequantize(data, TYPES[kind])
    monkeypatch.setitem(blocks.AT_ONCE, "cpu", 1000)  # parts that do not end with rows
    for dtype in (torch.float32, torch.bfloat16):
        found = blocks.widen(kind, torch.from_numpy(data), torch.empty(24, 512, dtype=dtype))
        assert torch.equal(found, torch.from_numpy(wanted).to(dtype))
    assert np.isfinite(wanted).all() and wanted.std() > 0


def layer(kind, rows, seed=0):
    return blocks.BlockLinear.of(kind, torch.from_numpy(noise(kind, rows, 512, seed)), torch.randn(rows))


def test_a_layer_is_its_widened_weights_product():
    torch.manual_seed(0)
    x, one = torch.randn(2, 5, 512), layer("Q4_K", 48)
    with torch.inference_mode():
        assert torch.equal(one(x), kernels.linear(x, one.weight, one.bias))
        assert torch.equal(one(x, gelu=True), kernels.linear(x, one.weight, one.bias, True))


def test_layers_of_several_types_join():
    """As in a file of llama.cpp's mixtures, where values have more bits than queries and keys."""
    torch.manual_seed(0)
    parts = [layer("Q4_K", 32, 1), layer("Q6_K", 32, 2), layer("IQ4_NL", 16)]
    assert parts[0].joins(parts[1]) and not parts[0].joins(Linear(512, 32))
    joined = blocks.BlockLinear.join(parts)
    assert torch.equal(joined.weight, torch.cat([part.weight for part in parts]))
    twice = blocks.BlockLinear.join([joined, parts[0]])
    assert torch.equal(twice.bias, torch.cat([joined.bias, parts[0].bias]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from helios_video.helios_core.convert.convert import convert
    from helios_video.helios_core.pipeline import TINY

    folder = tmp_path_factory.mktemp("gguf")
    convert(TINY, folder / "tiny", form="gguf", kind="q8_0")
    one, two, three = (next((folder / "tiny").rglob(f"*_{part}.*")) for part in ("transformer", "text_encoder", "vae"))
    return {"path": one, "text_encoder": two, "vae": three}


def velocity(helios):
    model = helios.parts.transformer
    torch.manual_seed(0)
    text = model.text_context(torch.randn(1, 5, model.config.text_dim))
    with torch.inference_mode():
        return model.velocity(torch.randn(1, 16, 3, 8, 8), 500.0, text).float()


def test_a_model_keeps_its_blocks_and_any_dtype_widens_them(saved):
    kept, widened, plain = load(**saved), load(**saved, weight_dtype="fp32"), load()
    layers = [m for m in kept.parts.transformer.modules() if isinstance(m, blocks.BlockLinear)]
    assert len(layers) == 8 * len(kept.parts.transformer.blocks)
    assert not any(isinstance(m, blocks.BlockLinear) for m in widened.parts.transformer.modules())
    error = (velocity(kept) - velocity(plain)).norm() / velocity(plain).norm()
    print(f"q8_0 of helios-tiny: relative error of a forward {error:.4f}")
    assert 1e-4 < error < 0.03
    assert (velocity(kept) - velocity(widened)).norm() / velocity(plain).norm() < 0.03
    with pytest.raises(ValueError, match="gguf weights.*would add both errors"):
        load(**saved, weight_dtype="int8")


def test_types_may_differ_from_layer_to_layer(tmp_path, saved):
    """As in llama.cpp's mixtures; and of three projections one may be plain, so that they stay apart."""
    state = tiny_state()
    kinds = {"attn1.to_q": "Q4_0", "attn1.to_k": "Q8_0", "ffn.net.2": "Q5_1", "attn1.to_v": "Q5_0"}

    def kind(name):
        if name == "blocks.1.attn1.to_v.weight" or not name.startswith("blocks."):
            return None
        return next((kind for part, kind in kinds.items() if part in name), "Q8_0")

    config = [("helios", read_metadata(saved["path"])["helios"])]
    helios = load(**saved | {"path": write(tmp_path / "mixed.gguf", state, kind=kind, texts=config)})
    first, second, *_ = helios.parts.transformer.blocks
    assert first.attn1.to_qkv.forms == ["Q4_0", "Q8_0", "Q5_0"]
    assert not hasattr(second.attn1, "to_qkv") and isinstance(second.attn1.to_v, Linear)
    error = (velocity(helios) - velocity(load())).norm() / velocity(load()).norm()
    assert 1e-3 < error < 0.2
    assert helios.parts.estimate().parts["transformer"] == size(helios.parts.transformer)
    assert helios.checkpoint.sources["transformer"].quantised == "q8_0, q4_0, q5_0, q5_1"


def tiny_state():
    """helios-tiny's tensors by their published names."""
    tensors = load().checkpoint.sources["transformer"].tensors
    return {name: as_float32(stored) for name, stored in tensors.items()}


def test_the_estimate_counts_the_blocks(saved):
    helios = load(**saved)
    assert helios.parts.estimate().parts["transformer"] == size(helios.parts.transformer)


def test_blocks_stream_and_take_loras(saved, tmp_path):
    from helios_video.helios_core.backends.torch.offload import stream_blocks
    from helios_video.helios_core.with_loras import with_loras
    from safetensors.torch import save_file

    helios = load(**saved)
    wanted = velocity(helios)
    down, up = torch.randn(2, 160), torch.randn(160, 2)
    key = "transformer.blocks.0.attn1.to_k"
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    changed = velocity(with_loras(helios, [(tmp_path / "lora.safetensors", 1.0)]))
    assert (changed - wanted).norm() > 1e-3
    stream_blocks(helios.parts.transformer, "cpu")
    assert torch.equal(velocity(helios), wanted)
