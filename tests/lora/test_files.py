"""LoRA files: what of a file fits, what is refused and how it says so, the official companion file. Named: M25."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends import torch as adapter
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.lora import changes, files, names
from helios_video.helios_core.lora.strength import Strength
from support.loras import BLOCKS, CONFIG, FOREIGN, IN_BLOCK, SHAPES, companion, make_pairs, pair_of, peft, write


def test_wan_loras_map_by_name_and_shape_and_the_rest_is_reported(tmp_path):
    """An image-to-video LoRA of Wan: image keys and values, an image embedding, more channels, more blocks."""
    pairs = make_pairs(BLOCKS)
    tensors = peft(pairs, "diffusion_model.", ("lora_down", "lora_up"), names.wan_name)
    dim = CONFIG.dim
    for i in range(4):
        for name in ("cross_attn.k_img", "cross_attn.v_img", *(["self_attn.q"] if i > 1 else [])):
            tensors[f"diffusion_model.blocks.{i}.{name}.lora_down.weight"] = torch.ones(2, dim)
            tensors[f"diffusion_model.blocks.{i}.{name}.lora_up.weight"] = torch.ones(dim, 2)
    tensors["diffusion_model.img_emb.proj.1.lora_down.weight"] = torch.ones(2, 7)
    tensors["diffusion_model.img_emb.proj.1.lora_up.weight"] = torch.ones(9, 2)
    tensors["diffusion_model.patch_embedding.diff"] = torch.ones(dim, 36, 1, 2, 2)
    file = files.read_lora(write(tmp_path, tensors), SHAPES)
    assert set(file.adapters) == set(pairs) and not file.added
    report = file.report(Strength(0.5))
    assert "lora.safetensors at 0.5: 20 layers changed. Not used: no such layer:" in report
    for part in (
        "blocks.*.cross_attn.k_img (4)",
        "blocks.*.self_attn.q (2)",
        "img_emb.proj.1",
        "another shape: patch_emb",
    ):
        assert part in report, report


def test_a_lora_of_wan_2_1_14b_fits_every_layer_of_the_published_model(tmp_path):
    shapes, tensors = adapter.shapes(TransformerConfig()), {}
    for i in range(40):
        for name in IN_BLOCK:
            out, columns = shapes[f"blocks.{i}.{name}.weight"]
            wan = f"diffusion_model.{names.wan_name(f'blocks.{i}.{name}')}"
            tensors[f"{wan}.lora_down.weight"] = torch.zeros(1, columns, dtype=torch.bfloat16)
            tensors[f"{wan}.lora_up.weight"] = torch.zeros(out, 1, dtype=torch.bfloat16)
            tensors[f"{wan}.diff_b"] = torch.zeros(out, dtype=torch.bfloat16)
    file = files.read_lora(write(tmp_path, tensors), shapes)
    assert len(file.adapters) == len(file.added) == file.count == 400 and not file.unused


@pytest.mark.parametrize("family", FOREIGN)
def test_a_lora_of_another_model_says_what_it_seems_to_be(family, tmp_path):
    with pytest.raises(ValueError, match=f"nothing of lora.safetensors fits this model: .*{family}"):
        files.read_lora(write(tmp_path, FOREIGN[family]), SHAPES)


GOOD = pair_of("blocks.0.attn1.to_q", (4, 48), (48, 4))
BAD = {
    "has no partner; the file is incomplete": {"blocks.0.attn1.to_q.lora_down.weight": torch.ones(4, 48)},
    "does not fit together: ranks differ .down": pair_of("blocks.0.attn1.to_q", (4, 48), (48, 3)),
    "dora_scale has no partner; the file is incomplete": {"blocks.0.attn1.to_q.dora_scale": torch.ones(48, 1)},
    "lokr_w1 has no partner; the file is incomplete": {"lycoris_blocks_0_attn1_to_q.lokr_w1": torch.ones(2, 2)},
    "hada_w1_a has no partner; the file is incomplete": {"lycoris_blocks_0_attn1_to_q.hada_w1_a": torch.ones(2, 2)},
    "LoHa and LoRA at once": {**GOOD, "blocks.0.attn1.to_q.hada_w1_a": torch.ones(2, 2)},
    "is OFT .*; read are LoRA, LoCon, LoHa, LoKr and DoRA": {"blocks.0.attn1.to_q.oft_blocks": torch.ones(2, 2, 2)},
    "another shape: blocks...attn1.to_q 48x48": {**GOOD, "blocks.0.attn1.to_q.dora_scale": torch.ones(47, 1)},
    "two products of different sizes": {
        f"blocks.0.attn1.to_q.hada_{k}": torch.ones(s)
        for k, s in (("w1_a", (48, 2)), ("w1_b", (2, 48)), ("w2_a", (47, 2)), ("w2_b", (2, 48)))
    },
    "does not fit together: no matrices": {
        "lycoris_blocks_0_attn1_to_q.lokr_w1": torch.tensor(1.0),
        "lycoris_blocks_0_attn1_to_q.lokr_w2": torch.ones(48, 48),
    },
    r"does not fit together: a bias for 48 rows .*\(47,\)": {
        **GOOD,
        "blocks.0.attn1.to_q.lora_up.bias": torch.ones(47),
    },
    "holds blocks.0.attn1.to_q twice, as": {
        **GOOD,
        **pair_of("diffusion_model.blocks.0.self_attn.q", (4, 48), (48, 4)),
    },
    "are the same weight of the same layer": {**GOOD, **pair_of("transformer.blocks.0.attn1.to_q", (4, 48), (48, 4))},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused(message, tmp_path):
    with pytest.raises(ValueError, match=message):
        files.read_lora(write(tmp_path, BAD[message]), SHAPES)


def test_bad_values_are_refused_when_read(tmp_path):
    for key, value, message in (
        ("lora_up.weight", torch.full((48, 4), float("nan")), "lora_up.weight holds NaN"),
        ("alpha", torch.tensor([1.0, 2.0]), "alpha holds 2 numbers"),
        ("alpha", torch.tensor(float("inf")), "alpha holds NaN or infinity"),
    ):
        file = files.read_lora(write(tmp_path, {**GOOD, f"blocks.0.attn1.to_q.{key}": value}), SHAPES)
        with pytest.raises(ValueError, match=message):
            changes.read_changes([(file, Strength(1.0))], None, CONFIG, SHAPES)


def test_bad_metadata_pickles_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lora_adapter_metadata is not JSON"):
        files.read_lora(write(tmp_path, GOOD, lora_adapter_metadata="{"), SHAPES)
    for raw in (
        "[1]",
        '{"transformer.lora_alpha": "much"}',
        '{"lora_alpha": NaN}',
        '{"alpha_pattern": {"q": []}}',
    ):
        with pytest.raises(ValueError, match="its LoRA metadata is no LoraConfig"):
            files.read_lora(write(tmp_path, GOOD, lora_adapter_metadata=raw), SHAPES)
    with pytest.raises(ValueError, match="is a DoRA by its metadata, without its magnitudes"):
        files.read_lora(write(tmp_path, GOOD, lora_adapter_metadata='{"transformer.use_dora": true}'), SHAPES)
    torch.save(GOOD, tmp_path / "lora.pt")
    with pytest.raises(ValueError, match="torch pickles are not"):
        files.read_lora(tmp_path / "lora.pt", SHAPES)
    with pytest.raises(ValueError, match="is missing"):
        files.read_lora(tmp_path / "none.safetensors", SHAPES)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_m25_companion_refuses_unknown_keys_other_shapes_and_code(tmp_path, capsys):
    for more, message in (
        ({"evolving_memory.query": torch.ones(2)}, "does not fit this model: evolving_memory.query"),
        ({"patch_mid.weight": torch.ones(2)}, "does not fit this model: patch_mid.weight"),
        ({"patch_mid.weight": torch.full(SHAPES["patch_mid.weight"], torch.nan)}, "patch_mid.weight holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            changes.read_companion(companion(tmp_path, **more)[0], CONFIG, SHAPES)
    path, tensors = companion(tmp_path)
    torch.save({k: v for k, v in tensors.items() if "blocks.1.attn1.history" not in k}, path)
    with pytest.raises(ValueError, match="history_key_scale for some blocks only"):
        changes.read_companion(path, CONFIG, SHAPES)
    torch.save({"patch_short.weight": Evil()}, path)
    with pytest.raises(ValueError, match="is no transformer_partial.pth"):
        changes.read_companion(path, CONFIG, SHAPES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no transformer_partial.pth, or is cut short"):
        changes.read_companion(path, CONFIG, SHAPES)
    with pytest.raises(ValueError, match="is missing"):
        changes.read_companion(tmp_path / "none.pth", CONFIG, SHAPES)
    assert "ran" not in capsys.readouterr().out


def test_names_that_mix_underscores_and_dots_are_read(tmp_path):
    """As some trainers write them."""
    shapes = {"blocks.0.attn1.to_q.weight": (48, 48)}
    for layer in ("blocks_0.self_attn.q", "blocks.0_attn1.to_q", "lora_unet_blocks_0_attn1.to_q"):
        found = files.read_lora(write(tmp_path, pair_of(layer, (4, 48), (48, 4))), shapes)
        assert list(found.adapters) == ["blocks.0.attn1.to_q"] and not found.unused
