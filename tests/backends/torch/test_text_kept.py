"""A text encoder in fewer bits stays so: it computes what its widened weights do, in the memory that is estimated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.backends.torch.offload import place, size
from helios_video.helios_core.backends.torch.text import load_text_encoder
from helios_video.helios_core.backends.torch.text_layers import KeptEmbedding, KeptLinear
from helios_video.helios_core.checkpoint import gguf, inferred, is_kept_text, open_part
from helios_video.helios_core.convert import gguf_quants
from helios_video.helios_core.devices.encoding import encoder_bytes
from safetensors.torch import save_file
from support.comfy_quants import FORMS, random_layer
from support.comfy_quants import write as write_layers
from support.gguf import TYPES, noise, package
from support.parts import bytes_tensor, make_spiece, scaled

SIZES = dict(vocab_size=60, d_model=256, d_kv=64, d_ff=512, num_layers=1, num_heads=4)
SIZES |= dict(relative_attention_num_buckets=8, model_type="umt5", tie_word_embeddings=False)
PROMPTS = ["a red circle moving left", "", "blue square"]
LAYERS = 7 * SIZES["num_layers"]
EMBEDDING = "shared.weight"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    shapes = {EMBEDDING: (SIZES["vocab_size"], SIZES["d_model"]), **inferred.umt5(SIZES)}
    return {name: torch.randn(shape) * 0.1 + (len(shape) == 1) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def plain(state, tmp_path_factory):
    """An encoder's file in float32, with a tokenizer."""
    path = tmp_path_factory.mktemp("text") / "plain.safetensors"
    save_file(state | {"spiece_model": bytes_tensor(make_spiece())}, path)
    return open_part(path, "text_encoder")


def rows(encoder):
    return torch.cat([encoder(prompt).rows.flatten() for prompt in (*PROMPTS, PROMPTS)])


def opened(path, plain):
    return replace(open_part(path, "text_encoder"), tokenizer=plain.tokenizer)


def check(source, plain, *, layers=LAYERS, embedding=True):
    """That so many layers of a file stay as they are, and compute what their numbers do: in float32 to rounding, in
    bfloat16 no further from that than what was widened."""
    path = source.path.with_name("wide.safetensors")
    save_file({name: widen(stored).float().contiguous() for name, stored in source.tensors.items()}, path)
    found, ids = [], torch.arange(SIZES["vocab_size"]).view(2, -1)
    for dtype in (torch.float32, torch.bfloat16):
        kept, wanted = (load_text_encoder(s, dtype=dtype) for s in (source, opened(path, plain)))
        modules = list(kept.model.modules())
        assert sum(isinstance(m, KeptLinear) for m in modules) == layers
        assert isinstance(kept.model.shared, KeptEmbedding) == embedding
        assert not any(t.is_meta for t in (*kept.model.parameters(), *kept.model.buffers()))
        with torch.inference_mode():
            assert torch.equal(kept.model.shared(ids), wanted.model.shared(ids))
        found += [rows(wanted), rows(kept)]
    exact, *others = found
    same, wide, ours = (float((other - exact).norm() / exact.norm()) for other in others)
    assert same < 2e-5 and ours < 2 * wide  # what is rotated is, in bfloat16, beside it
    auto = load_text_encoder(source)
    assert auto.model.dtype == torch.bfloat16
    assert size(auto.model) == pytest.approx(encoder_bytes(source, "torch", "cpu")[0], rel=0.025)


def write_blocks(path, state: dict, kind: str) -> None:
    """llama.cpp's names, all matrices in a type: by the package, by ours, or random where neither makes it."""
    writer = package.GGUFWriter(path, "t5encoder")
    for name, value in state.items():
        value, key = np.ascontiguousarray(value.numpy()), gguf.t5_gguf_name(name)
        if value.ndim == 1 or "relative" in name:
            writer.add_tensor(key, value)
            continue
        try:
            data = package.quantize(value, TYPES[kind])
        except NotImplementedError:
            made = kind.lower() in gguf_quants.KINDS
            data = gguf_quants.quantise(value, kind.lower()).reshape(len(value), -1) if made else None
        writer.add_tensor(key, noise(kind, *value.shape) if data is None else data, raw_dtype=TYPES[kind])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


@pytest.mark.parametrize("kind", gguf.BLOCKS)
def test_in_each_type_of_gguf(kind, state, plain, tmp_path):
    write_blocks(tmp_path / "x.gguf", state, kind)
    check(opened(tmp_path / "x.gguf", plain), plain)


@pytest.mark.parametrize("form", FORMS)
def test_in_each_of_comfyuis_forms(form, state, plain, tmp_path):
    """All linear layers, and the embedding too."""
    rng, tensors, dtypes = np.random.default_rng(0), {}, {}
    for name, value in state.items():
        if value.ndim == 1 or "relative" in name:
            tensors[name] = value.numpy()
            continue
        layer = name.removesuffix("weight")
        parts, kinds, _ = random_layer(form, rng, *value.shape)
        tensors |= {layer + part: values for part, values in parts.items()}
        dtypes |= {layer + part: kind for part, kind in kinds.items()}
    write_layers(tmp_path / "x.safetensors", tensors, dtypes)
    widened = form == "float8_e5m2"  # of which no layer is kept, in the transformer neither
    check(opened(tmp_path / "x.safetensors", plain), plain, layers=0 if widened else LAYERS, embedding=not widened)


@pytest.mark.parametrize("name", [".scale_weight", ".weight_scale"])
def test_scaled_fp8_whose_embedding_is_plain(name, state, plain, tmp_path):
    """As umt5_xxl_fp8_e4m3fn_scaled.safetensors."""
    stored, _ = scaled(state, name)
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias"
    for i in range(SIZES["num_layers"]):
        stored[f"{bias.format(i)}.weight"] = state[f"{bias.format(i)}.weight"]
        del stored[bias.format(i) + name]
    stored = {key: value.half() if value.dtype == torch.float32 else value for key, value in stored.items()}
    save_file(stored | {"scaled_fp8": torch.empty(0).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    check(opened(tmp_path / "x.safetensors", plain), plain)


def test_fp8_without_factors_and_both_names(state, plain, tmp_path):
    """Everything cast, as some do; both names of the embedding are one, or are refused."""
    other = "encoder.embed_tokens.weight"
    stored = {name: value.to(torch.float8_e4m3fn) for name, value in state.items()}
    for change, path in ((0, tmp_path / "same.safetensors"), (0.5, tmp_path / "other.safetensors")):
        save_file(stored | {other: (state[EMBEDDING] + change).to(torch.float8_e4m3fn)}, path)
    check(opened(tmp_path / "same.safetensors", plain), plain)
    with pytest.raises(ValueError, match="embed_tokens.weight differ"):
        load_text_encoder(opened(tmp_path / "other.safetensors", plain))


def test_half_precision_keeps_its_last_layers_in_float32(state, plain, tmp_path):
    write_blocks(tmp_path / "x.gguf", state, "Q8_0")
    kept = load_text_encoder(opened(tmp_path / "x.gguf", plain), dtype=torch.float16)
    feed = kept.model.encoder.block[0].layer[1].DenseReluDense
    assert (feed.wi_0.layer.dtype, feed.wo.layer.dtype) == (torch.float16, torch.float32)
    wanted = load_text_encoder(plain)
    assert (rows(kept) - rows(wanted)).norm() / rows(wanted).norm() < 0.05


def test_it_moves_with_what_it_keeps_and_the_processor_maps_it(state, plain, tmp_path):
    write_blocks(tmp_path / "x.gguf", state, "Q4_0")
    source = opened(tmp_path / "x.gguf", plain)
    encoder = load_text_encoder(source)
    wanted = rows(encoder)
    place(encoder.model, "cpu")
    assert torch.equal(rows(encoder), wanted)
    codes = encoder.model.shared.layer.blocks_0
    assert codes.data_ptr() == encoder.model.encoder.embed_tokens.layer.blocks_0.data_ptr()
    assert codes.untyped_storage().nbytes() >= source.path.stat().st_size  # the file's own pages


def test_apples_gpu_has_no_fp8(state, plain, tmp_path):
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in state.items()}, tmp_path / "x.safetensors")
    tensors = opened(tmp_path / "x.safetensors", plain).tensors
    assert is_kept_text(EMBEDDING, tensors[EMBEDDING], "cuda") and not is_kept_text(
        EMBEDDING, tensors[EMBEDDING], "mps"
    )
    source = opened(tmp_path / "x.safetensors", plain)
    ours, theirs, other = (
        encoder_bytes(source, *on)[0] for on in (("torch", "cuda"), ("torch", "mps"), ("mlx", "metal"))
    )
    assert theirs == other and 1.9 * ours < theirs


def test_a_config_of_another_network_is_refused(state, plain, tmp_path):
    with pytest.raises(ValueError, match="its config is of another network"):
        load_text_encoder(replace(plain, config=plain.config | {"feed_forward_proj": "relu"}))
