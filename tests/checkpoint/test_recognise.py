"""A wrong file says what it is."""

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.checkpoint import recognise
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import save_file

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
