"""Names in LoRA files: what a key says, and that no two layers can be meant by one."""

from __future__ import annotations

import pytest
from helios_video.helios_core.backends import torch as adapter
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.lora.names import Part, aliases, flat, key_forms, parse, usual_keys, wan_name

SHAPES = adapter.shapes(TransformerConfig(num_layers=12))


def test_every_layer_has_names_of_its_own_with_underscores_too():
    paths = {name if name.endswith("scale_shift_table") else name.rpartition(".")[0] for name in SHAPES}
    found = aliases(SHAPES)
    assert set(found.values()) == paths
    assert all(found[flat(form)] == path for path in paths for form in (path, wan_name(path)))
    assert set(key_forms(SHAPES).values()) <= set(SHAPES)


@pytest.mark.parametrize(
    "key,path,role",
    [
        ("lora_unet_blocks_12.self_attn.k.lora_down.weight", "blocks_12.self_attn.k", "down"),
        ("transformer.blocks.0.attn1.to_q.lora_B.default.weight", "blocks.0.attn1.to_q", "up"),
        ("lycoris_blocks_0_ffn_net_2.hada_w2_b", "blocks_0_ffn_net_2", "hada_w2_b"),
        ("base_model.model.blocks.0.ffn.net.2.lokr_w1", "blocks.0.ffn.net.2", "lokr_w1"),
        ("diffusion_model.blocks.0.ffn.0.dora_scale", "blocks.0.ffn.0", "dora"),
        ("base_model.model.x.lora_magnitude_vector.default.weight", "x", "dora_rows"),
        ("lora_unet_patch_embedding.lora_mid.weight", "patch_embedding", "mid"),
        ("unet.blocks.0.attn1.to_q_lora.up.weight", "blocks.0.attn1.to_q", "up"),
        ("lycoris_blocks_0_norm3.w_norm", "blocks_0_norm3", "add"),
        ("blocks.0.diff_m", "blocks.0.modulation", "add"),
        ("blocks.0.attn1.to_q.lora_up.bias", "blocks.0.attn1.to_q", "bias"),
    ],
)
def test_keys(key, path, role):
    assert parse(key) == Part(path, role)


def test_usual_keys_are_comfyuis():
    keys = ["lora_unet_blocks_11.self_attn.k.lora_A.default.weight", "lycoris_blocks_1_ffn_net_2.lokr_w2_a"]
    assert usual_keys([*keys, "blocks.99.self_attn.k.alpha", "a.b"], SHAPES) == {
        keys[0]: "diffusion_model.blocks.11.attn1.to_k.lora_down.weight",
        keys[1]: "diffusion_model.blocks.1.ffn.net.2.lokr_w2_a",
    }
