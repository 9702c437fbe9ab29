"""Every file form loads to the same networks, and a wrong file says what it is: M2, M12, M25, V1."""

import io
import json
import logging
import random
import re
import struct

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.load import load_text_encoder, load_transformer, load_vae
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import inferred, recognise
from helios_video.helios_core.checkpoint import names as keys
from helios_video.helios_core.checkpoint.open import open_checkpoint
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from helios_video.helios_core.text.tokenizer import from_spiece, load_tokenizer
from safetensors.torch import save_file

# Heads of 128 channels, as the sizes of a file without a config take them to be.
TRANSFORMER = dict(num_attention_heads=1, ffn_dim=24, num_layers=2, text_dim=16, freq_dim=8)
VAE = dict(base_dim=4, dim_mult=(1, 2, 2, 2), num_res_blocks=1)
TEXT = dict(vocab_size=60, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, relative_attention_num_buckets=8)
CONFIG = ModelConfig(transformer=TransformerConfig(**TRANSFORMER), vae=VAEConfig(**VAE))
WORDS = (
    "a red circle moving left blue square over the hill caf\u00e9 stra\u00dfe \u4f60\u597d 123 don't A Big DOG".split()
)


def randomise(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def states():
    """Published name -> tensor of each part, random."""
    torch.manual_seed(0)
    umt5 = {"shared.weight": (TEXT["vocab_size"], TEXT["d_model"]), **inferred.umt5(TEXT)}
    return {
        "transformer": randomise(HeliosTransformer(CONFIG.transformer)),
        "vae": randomise(WanVAE(CONFIG.vae)),
        "text_encoder": {name: 0.2 * torch.randn(shape) for name, shape in umt5.items()},
    }


def varint(value):
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def message(*fields):
    """A protobuf message of (number, whole number, float or bytes)."""
    out = b""
    for number, value in fields:
        kind = {int: 0, float: 5, bytes: 2}[type(value)]
        out += varint(number << 3 | kind)
        out += {0: varint, 5: lambda v: struct.pack("<f", v), 2: lambda v: varint(len(v)) + v}[kind](value)
    return out


@pytest.fixture(scope="module")
def spiece():
    """Bytes of a small sentencepiece model: letters, and a few words that go before them."""
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces += [(letter, -9.0, 1) for letter in sorted({letter for word in WORDS for letter in word} | {"\u2581"})]
    pieces += [(f"\u2581{word}", -3.0, 1) for word in WORDS[:8]]
    assert len(pieces) <= TEXT["vocab_size"]
    listed = [(1, message((1, text.encode()), (2, score), (3, kind))) for text, score, kind in pieces]
    return message(*listed, (2, message((3, 1), (40, 2), (42, 1))), (3, message((4, 1))))


def bytes_tensor(data):
    return torch.tensor(list(data), dtype=torch.uint8)


def same(loaded, state):
    """Whether a module holds exactly these tensors; the joined projections of a transformer are taken apart."""
    found = dict(loaded.state_dict())
    for name in [n for n in found if ".attn1.to_qkv." in n]:
        for part, value in zip(("to_q", "to_k", "to_v"), found.pop(name).chunk(3), strict=True):
            found[name.replace("to_qkv", part)] = value
    assert set(found) == set(state)
    return all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in state.items())


PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")
NAMES = {"published": str, "pull request": keys.pull_request_name}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_m2_transformer_files(states, tmp_path, prefix, names, dtype):
    state = {name: value.to(dtype) for name, value in states["transformer"].items()}
    save_file({prefix + NAMES[names](name): value for name, value in state.items()}, tmp_path / "x.safetensors")
    source = open_part(tmp_path / "x.safetensors", "transformer")
    assert TransformerConfig.from_dict(source.config) == CONFIG.transformer
    model = load_transformer(source, CONFIG, dtype="auto", device="cpu")
    assert model.dtype == dtype and same(model, state)


def test_the_pull_requests_names():
    """Spot checks against spec: the renamed layers, and some that keep their names."""
    for theirs, ours in {
        "text_embedding.2.bias": "condition_embedder.text_embedder.linear_2.bias",
        "time_embedding.0.weight": "condition_embedder.time_embedder.linear_1.weight",
        "time_projection.1.weight": "condition_embedder.time_proj.weight",
        "blocks.7.ffn.0.weight": "blocks.7.ffn.net.0.proj.weight",
        "blocks.39.ffn.2.bias": "blocks.39.ffn.net.2.bias",
        "blocks.0.attn1.to_out.0.weight": "blocks.0.attn1.to_out.0.weight",
        "norm_out.scale_shift_table": "norm_out.scale_shift_table",
    }.items():
        assert keys.transformer_name(theirs) == ours and keys.pull_request_name(ours) == theirs
    assert keys.transformer_name("scale_shift_table") == "norm_out.scale_shift_table"


def test_the_14b_models_names_and_sizes():
    """The published sizes follow from the shapes, and every name goes over and back."""
    with torch.device("meta"):
        models = HeliosTransformer(TransformerConfig(num_layers=2)), WanVAE(VAEConfig())
    transformer, vae = ({name: tuple(v.shape) for name, v in m.state_dict().items()} for m in models)
    assert TransformerConfig.from_dict(inferred.transformer(transformer)) == TransformerConfig(num_layers=2)
    assert VAEConfig.from_dict(inferred.vae(vae)) == VAEConfig()
    assert keys.published("transformer", map(keys.pull_request_name, transformer)).keys() == transformer.keys()
    wan = keys.wan_names(vae)
    assert keys.published("vae", wan.values()) == wan
    assert wan["decoder.up_blocks.1.upsamplers.0.time_conv.weight"] == "decoder.upsamples.7.time_conv.weight"
    assert {"conv1.weight", "conv2.bias", "encoder.head.2.weight", "decoder.middle.1.to_qkv.weight"} < set(wan.values())


def test_wan_names_are_diffusers_too():
    """diffusers' own map from Wan's names, for the published sizes."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    with torch.device("meta"):
        published = WanVAE(VAEConfig()).state_dict()
    wan = {theirs: ours for ours, theirs in keys.wan_names(published).items()}
    assert all(ours == mine for mine, ours in convert_wan_vae_to_diffusers(dict(wan)).items())
    assert len(wan) == len(published) == 194


def test_an_amplified_models_gains_are_seen():
    for gains, mode in (((40,), "per_head"), ((1,), "scalar")):
        with torch.device("meta"):
            config = TransformerConfig(num_layers=1, is_amplify_history=True, history_scale_mode=mode)
            state = HeliosTransformer(config).state_dict()
        assert state["blocks.0.attn1.history_key_scale"].shape == gains
        assert (
            TransformerConfig.from_dict(inferred.transformer({k: tuple(v.shape) for k, v in state.items()})) == config
        )


@pytest.mark.parametrize("names", ["published", "Wan's own"])
def test_m2_vae_files(states, tmp_path, names):
    rename = keys.wan_names(states["vae"]) if names != "published" else {}
    save_file({rename.get(name, name): value for name, value in states["vae"].items()}, tmp_path / "x.safetensors")
    source = open_part(tmp_path / "x.safetensors", "vae")
    assert VAEConfig.from_dict(source.config) == CONFIG.vae
    assert same(load_vae(source, CONFIG, device="cpu"), states["vae"])


def test_m2_umt5_names_are_transformers(states):
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        wanted = UMT5EncoderModel(UMT5Config(**TEXT)).state_dict()
    assert {k: tuple(v.shape) for k, v in wanted.items() if k != "encoder.embed_tokens.weight"} == {
        k: tuple(v.shape) for k, v in states["text_encoder"].items()
    }


def scaled(state, scale_name, generator=None):
    """ComfyUI's scaled fp8: matrices as codes with one factor each; and what they stand for."""
    stored, meant = {}, {}
    for name, value in state.items():
        if value.ndim == 2 and "shared" not in name:
            scale = value.abs().amax() / 448
            stored[name] = (value / scale).to(torch.float8_e4m3fn)
            stored[name.removesuffix(".weight") + scale_name] = scale
            meant[name] = stored[name].float() * scale
        else:
            stored[name] = meant[name] = value
    return stored, meant


@pytest.mark.parametrize("form", ["fp32", "fp16", "fp8 scale_weight", "fp8 weight_scale"])
def test_m2_v1_umt5_files(states, spiece, tmp_path, form):
    state = states["text_encoder"]
    stored, meant = state, state
    if form == "fp16":
        stored = {name: value.half() for name, value in state.items()}
        meant = {n: v.half() if not n.endswith(".wo.weight") else v.half().float() for n, v in state.items()}
    elif form.startswith("fp8"):
        stored, meant = scaled(state, form[3:].replace(" ", "."))
        meant = {name: value.bfloat16() for name, value in meant.items()}
        stored["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
        stored["encoder.block.0.layer.0.SelfAttention.q.scale_input"] = torch.ones(())
    save_file(stored | {"spiece_model": bytes_tensor(spiece)}, tmp_path / "umt5.safetensors")
    encoder = load_text_encoder(open_part(tmp_path / "umt5.safetensors", "text_encoder"))
    loaded = encoder.model.state_dict()
    assert torch.equal(loaded.pop("encoder.embed_tokens.weight"), loaded["shared.weight"])
    assert loaded.keys() == meant.keys()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in meant.items())
    red, blue = encoder(["a red circle", "blue square"])
    assert torch.isfinite(red).all() and (red - blue).abs().max() > 0.01


def test_newer_files_say_each_layers_format(states, spiece, tmp_path):
    layer = "encoder.block.0.layer.0.SelfAttention.q"
    stored, _ = scaled(states["text_encoder"], ".weight_scale")
    stored["spiece_model"] = bytes_tensor(spiece)
    path = tmp_path / "x.safetensors"
    for said, accepted in (
        (b'{"format": "float8_e4m3fn"}', True),
        (b'{"format": "nvfp4"}', False),
        (b'{"format": "float8_e4m3fn", "convrot": true}', False),
        (b"nothing", False),
    ):
        save_file(stored | {f"{layer}.comfy_quant": bytes_tensor(said)}, path)
        if accepted:
            open_part(path, "text_encoder")
            continue
        with pytest.raises(ValueError, match=r"q\.comfy_quant"):
            open_part(path, "text_encoder")
    save_file(stored, path, metadata={"_quantization_metadata": json.dumps({"layers": {layer: {"format": "mxfp8"}}})})
    with pytest.raises(ValueError, match="SelfAttention.q says .*mxfp8"):
        open_part(path, "text_encoder")


@pytest.mark.parametrize("names", NAMES)
def test_scaled_fp8_transformers(states, tmp_path, names):
    """Widened in bf16: exactly code times factor, rounded once."""
    rename = NAMES[names]
    linear = {k: v for k, v in states["transformer"].items() if ".attn" in k and v.ndim == 2}
    stored, meant = scaled(linear, ".scale_weight")
    rest = {k: v.bfloat16() for k, v in states["transformer"].items() if k not in linear}
    marker = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    save_file(
        {f"diffusion_model.{rename(k)}": v for k, v in (stored | rest | marker).items()}, tmp_path / "x.safetensors"
    )
    source = open_part(tmp_path / "x.safetensors", "transformer")
    assert source.quantised == "fp8_e4m3fn"
    model = load_transformer(source, CONFIG, dtype="bf16", device="cpu")
    assert same(model, {k: v.bfloat16() for k, v in (meant | rest).items()})


def test_fp8_without_factors_is_widened(states, tmp_path):
    """A plain cast to fp8, as older files are; its convolutions too."""
    state = {k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v.bfloat16() for k, v in states["transformer"].items()}
    save_file(state, tmp_path / "x.safetensors")
    model = load_transformer(open_part(tmp_path / "x.safetensors", "transformer"), CONFIG, dtype="fp32", device="cpu")
    assert same(model, {k: v.float() for k, v in state.items()})


def test_m25_a_factor_without_its_weight_is_an_error(states, tmp_path):
    extra = {"blocks.0.attn9.to_q.scale_weight": torch.ones(())}
    save_file(states["transformer"] | extra, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"a factor of blocks\.0\.attn9\.to_q\.weight, which is missing"):
        open_part(tmp_path / "x.safetensors", "transformer")


@pytest.mark.parametrize("shape", [(3,), (64, 1), (128, 3), (128, 1, 1), None])
def test_factors_that_do_not_fit_are_refused(states, tmp_path, shape):
    name = "blocks.0.attn1.to_q.weight"
    codes = torch.zeros(128, 128, dtype=torch.int8 if shape is None else torch.float8_e4m3fn)
    scale = {} if shape is None else {name.replace("weight", "scale_weight"): torch.ones(shape)}
    save_file(states["transformer"] | {name: codes} | scale, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"x.safetensors: {name} is .* with (F32|no factors)"):
        open_part(tmp_path / "x.safetensors", "transformer")


def test_mixed_names_are_refused(states, tmp_path):
    double = {keys.pull_request_name(name): value.clone() for name, value in states["transformer"].items()}
    save_file(states["transformer"] | double, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="mixes two naming schemes"):
        open_part(tmp_path / "x.safetensors", "transformer")


TEXTS = [" ".join(random.Random(i).choice(WORDS) for _ in range(9)) for i in range(40)]
TEXTS += [
    "",
    " ",
    "  a  red   circle ",
    "\uff21\uff42 \ufb01ne",
    "x\u00a0y\u3000z",
    "\U0001f600\U0001f600 zzz",
    "tab\tnew\nline",
]
TEXTS += ["a <extra> b<extra>c", "e\u0301\u200b", "\u2581a \u2581 b", "don't 123123"]


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
@pytest.mark.parametrize("merge_spaces", [True, False])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_sentencepiece_models_tokenise_as_in_sentencepiece(rule, merge_spaces, byte_fallback):
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:40]), model_writer=model, vocab_size=350 if byte_fallback else 70,
        byte_fallback=byte_fallback, hard_vocab_limit=False, num_threads=1,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, user_defined_symbols=["<extra>"],
        normalization_rule_name=rule, remove_extra_whitespaces=merge_spaces,
    )  # fmt: skip
    oracle = spm.SentencePieceProcessor(model_proto=model.getvalue(), add_eos=True)
    ours = from_spiece(model.getvalue(), "x")
    assert [ours.encode(text).ids for text in TEXTS] == oracle.encode(TEXTS)


def test_the_three_places_of_a_tokenizer_agree(spiece, tmp_path):
    (tmp_path / "spiece").mkdir()
    (tmp_path / "spiece" / "spiece.model").write_bytes(spiece)
    (tmp_path / "json").mkdir()
    from_spiece(spiece, "x").save(str(tmp_path / "json" / "tokenizer.json"))
    umt5 = {name: torch.zeros(shape) for name, shape in inferred.umt5(TEXT).items()} | {
        "shared.weight": torch.zeros(60, 16)
    }
    save_file(umt5 | {"spiece_model": bytes_tensor(spiece)}, tmp_path / "x.safetensors")
    embedded = open_part(tmp_path / "x.safetensors", "text_encoder").tokenizer
    rows = [load_tokenizer(p, 8)(TEXTS) for p in (tmp_path / "spiece", tmp_path / "json", embedded)]
    assert rows[0] == rows[1] == rows[2] and max(map(len, rows[0])) == 8


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_broken_sentencepiece_models_are_named(spiece, cut):
    with pytest.raises(ValueError, match="x: .*sentencepiece"):
        from_spiece(b"" if cut == 1 else spiece[:-cut] + b"\xff" * (cut - 10), "x")


@pytest.fixture
def files(states, spiece, tmp_path):
    """The three files of a ComfyUI user."""
    save_file(states["transformer"], tmp_path / "helios.safetensors")
    wan = keys.wan_names(states["vae"])
    save_file({wan[name]: value for name, value in states["vae"].items()}, tmp_path / "wan_2.1_vae.safetensors")
    save_file(states["text_encoder"] | {"spiece_model": bytes_tensor(spiece)}, tmp_path / "umt5.safetensors")
    return tmp_path / "helios.safetensors", tmp_path / "umt5.safetensors", tmp_path / "wan_2.1_vae.safetensors"


def test_a_checkpoint_of_three_files(files, states, caplog):
    model, umt5, vae = files
    helios = load(model, text_encoder=umt5, vae=vae)
    assert helios.config.variant == "distilled" and helios.config.defaults.steps == (2, 2, 2)
    assert helios.config.schedule.use_dynamic_shifting and helios.config.schedule.time_shift_type == "linear"
    assert "helios.safetensors does not say which variant it is; taken for Distilled" in caplog.text
    assert same(helios.transformer, states["transformer"]) and same(helios.vae, states["vae"])
    assert helios.text("a red circle").shape == (1, 512, 16)


@pytest.mark.parametrize(
    "name,variant",
    [("Helios-Base-fp8", "base"), ("helios_mid_bf16", "mid"), ("database", "distilled"), ("base_mid", "distilled")],
)
def test_a_files_name_tells_its_variant(files, name, variant, caplog):
    model = files[0].rename(files[0].with_name(f"{name}.safetensors"))
    config = open_checkpoint(model, text_encoder=files[1], vae=files[2]).config
    assert config.variant == variant and f"taken for {variant.capitalize()}" in caplog.text
    assert config.schedule.stages == (1 if variant == "base" else 3)
    shift = "linear" if variant == "distilled" else "exponential"
    assert config.schedule.use_dynamic_shifting and config.schedule.time_shift_type == shift


def test_metadata_goes_before_the_name(files, states, caplog):
    path = files[0].with_name("distilled.safetensors")
    said = {
        "model_index.json": json.dumps({"_class_name": "HeliosPyramidPipeline"}),
        "scheduler/scheduler_config.json": json.dumps({"_class_name": "HeliosScheduler", "scheduler_type": "unipc"}),
        "transformer/config.json": json.dumps({**TRANSFORMER, "rope_theta": 5000.0}),
    }
    save_file(states["transformer"], path, metadata={"helios": json.dumps(said)})
    with caplog.at_level(logging.WARNING):
        config = open_checkpoint(path, text_encoder=files[1], vae=files[2]).config
    assert config.variant == "mid" and config.transformer.rope_theta == 5000.0 and not caplog.records
    save_file(states["transformer"], path, metadata={"helios": "{"})
    with pytest.raises(ValueError, match="metadata is broken"):
        open_checkpoint(path, text_encoder=files[1], vae=files[2])


def test_what_is_left_to_choose_is_named(files):
    model, umt5, vae = files
    with pytest.raises(ValueError, match=r"no vae; choose one, such as wan_2.1_vae.safetensors .*--vae"):
        load(model, text_encoder=umt5)
    with pytest.raises(ValueError, match=r"no text_encoder; choose one, such as umt5_xxl.*--text-encoder"):
        load(model, vae=vae)
    with pytest.raises(ValueError, match="no vae at /nowhere"):
        load(model, text_encoder=umt5, vae="/nowhere")


def test_a_tokenizer_is_wanted_at_load(files, states):
    save_file(states["text_encoder"], files[1])
    with pytest.raises(ValueError, match="holds no tokenizer; take one that does"):
        load(files[0], text_encoder=files[1], vae=files[2])


def test_m2_the_text_encoders_keys_are_checked_at_load(files, states):
    state = {
        k: v for k, v in states["text_encoder"].items() if not k.endswith("block.1.layer.1.DenseReluDense.wo.weight")
    }
    save_file(state, files[1])
    with pytest.raises(ValueError, match=r"1 missing: encoder\.block\.1\.layer\.1\.DenseReluDense\.wo\.weight"):
        load(files[0], text_encoder=files[1], vae=files[2])


def test_wrong_parts_are_named(files):
    model, umt5, vae = files
    with pytest.raises(ValueError, match="seems to be a Wan 2.1 VAE; wanted a Helios transformer"):
        load(vae)
    with pytest.raises(ValueError, match="seems to be a UMT5 text encoder; wanted the Wan 2.1 VAE"):
        load(model, text_encoder=vae, vae=umt5)


FOREIGN = {
    "a Wan transformer": ["blocks.0.self_attn.q.weight", "patch_embedding.weight", "head.head.weight"],
    "a LoRA": [
        "diffusion_model.blocks.0.attn1.to_q.lora_A.weight",
        "diffusion_model.blocks.0.attn1.to_q.lora_B.weight",
    ],
    "a Flux transformer": ["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale"],
    "a HunyuanVideo transformer": [
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "txt_in.individual_token_refiner.blocks.0.norm1.weight",
    ],
    "an LTX video transformer": ["transformer_blocks.0.attn1.to_q.weight", "patchify_proj.weight"],
    "a Stable Diffusion model": [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.bias",
    ],
    "a T5 text encoder such as t5xxl": ["encoder.block.1.layer.0.SelfAttention.q.weight", "shared.weight"],
    "a UMT5 text encoder in Wan's own key names": ["blocks.0.attn.q.weight", "token_embedding.weight"],
    "a CLIP text encoder": ["text_model.encoder.layers.0.self_attn.q_proj.weight"],
    "a Wan 2.2 VAE": ["decoder.upsamples.0.upsamples.0.residual.2.weight", "conv1.weight"],
    "a Wan 2.1 VAE": ["decoder.middle.0.residual.0.gamma", "encoder.conv1.weight"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_models_are_named(tmp_path, what):
    save_file({name: torch.zeros(1) for name in FOREIGN[what]}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"x.safetensors seems to be {what}.*; wanted a Helios transformer"):
        open_part(tmp_path / "x.safetensors", "transformer")


MAGIC = {
    b"GGUF\x03\0\0\0": "a GGUF file",
    b"PK\x03\x04\0\0\x08\x08": "a torch pickle",
    b"\x80\x02\x8a\nl\xfc\x9cF": "a torch pickle",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "a Git LFS pointer",
    b"<!DOCTYPE html><html><head>": "a web page",
    b'{"error": "Repository not found"}': "a JSON text",
}


@pytest.mark.parametrize("start", MAGIC)
def test_other_kinds_of_files_are_named(tmp_path, start):
    (tmp_path / "x.safetensors").write_bytes(start + b"\0" * 200)
    with pytest.raises(ValueError, match=f"x.safetensors is not a safetensors file: it seems to be {MAGIC[start]}"):
        load(tmp_path / "x.safetensors")


def test_unknown_files_are_not_guessed_at():
    assert recognise.of_names(["a", "b"]) is None and recognise.of_bytes(b"\x10" + b"\0" * 9) == ""


def test_sizes_that_shapes_do_not_tell_are_refused(tmp_path):
    with torch.device("meta"):
        state = HeliosTransformer(
            TransformerConfig(**TRANSFORMER | dict(attention_head_dim=12, rope_dim=(4, 4, 4)))
        ).state_dict()
    save_file({name: torch.zeros(value.shape) for name, value in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors: a width of 12 is not made of heads of 128"):
        open_part(tmp_path / "x.safetensors", "transformer")


def test_m12_nothing_is_computed_before_the_weights_are_there(states, tmp_path):
    """What depends on weights is made from the loaded ones: two files loaded in turn do not share anything."""
    other = {name: value + 1 for name, value in states["transformer"].items()}
    save_file(states["transformer"], tmp_path / "a.safetensors")
    save_file(other, tmp_path / "b.safetensors")

    def tables(name):
        source = open_part(tmp_path / f"{name}.safetensors", "transformer")
        model = load_transformer(source, CONFIG, dtype="fp32", device="cpu")
        _, vectors = model.condition_embedder(torch.zeros(1))
        return model.modulations(vectors)[0][0].shift

    first, second, again = tables("a"), tables("b"), tables("a")
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_files_without_comfyui(files, tmp_path, monkeypatch, capsys):
    """models/diffusion_models and so on of the folder one works in: on the command line, and in the loader."""
    from helios_video.helios_core.checkpoint import folders
    from helios_video.helios_core.commands.doctor import doctor
    from helios_video.nodes import host

    places = dict(zip(("diffusion_models", "text_encoders", "vae"), files, strict=True))
    for kind, file in places.items():
        (tmp_path / "work" / "models" / kind).mkdir(parents=True)
        file.rename(tmp_path / "work" / "models" / kind / file.name)
    save_file(
        {"double_blocks.0.img_attn_qkv.weight": torch.zeros(1)}, tmp_path / "work/models/diffusion_models/z.safetensors"
    )
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HELIOS_MODELS", raising=False)
    assert host.model_names() == ["helios-tiny", "helios.safetensors", "z.safetensors"]
    assert host.model_path("helios.safetensors") == folders.find_checkpoint("helios.safetensors")
    assert host.file_names("vae") == ["wan_2.1_vae.safetensors"] and host.part_path("vae", "from model") is None
    model = load(
        folders.find_checkpoint("helios.safetensors"),
        text_encoder=folders.find_file("text_encoders", "umt5.safetensors"),
        vae=host.part_path("vae", "wan_2.1_vae.safetensors"),
    )
    assert model.config.transformer == CONFIG.transformer
    with pytest.raises(ValueError, match="no file 'x', here or in models/vae, which holds wan_2.1_vae.safetensors"):
        folders.find_file("vae", "x")
    doctor()
    said = capsys.readouterr().out
    assert re.search(r"helios.safetensors: \d+ MiB, needs --vae and --text-encoder", said)
    assert "z.safetensors: cannot be used" in said and "seems to be a HunyuanVideo transformer" in said
