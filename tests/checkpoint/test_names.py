"""The names of tensors in every file form lead to the published ones: M2."""

import pytest
import torch
from helios_video.helios_core.backends.torch.load import load_transformer, load_vae
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.checkpoint import names as keys
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import TransformerConfig, VAEConfig
from safetensors.torch import save_file
from support.parts import CONFIG, NAMES, TEXT, same

PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")


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


def test_mixed_names_are_refused(states, tmp_path):
    double = {keys.pull_request_name(name): value.clone() for name, value in states["transformer"].items()}
    save_file(states["transformer"] | double, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="mixes two naming schemes"):
        open_part(tmp_path / "x.safetensors", "transformer")
