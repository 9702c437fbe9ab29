"""A checkpoint as a folder or as single files: its variant, its parts, and what is left to choose. M2."""

import json
import logging

import pytest
from helios_video.helios_core import load
from helios_video.helios_core.checkpoint.open import open_checkpoint
from safetensors.torch import save_file
from support import published as folders
from support.parts import TRANSFORMER, same


def test_a_checkpoint_of_three_files(files, states, caplog):
    model, umt5, vae = files
    helios = load(model, text_encoder=umt5, vae=vae)
    assert helios.config.variant == "distilled" and helios.config.defaults.steps == (2, 2, 2)
    assert helios.config.schedule.use_dynamic_shifting and helios.config.schedule.time_shift_type == "linear"
    assert "helios.safetensors does not say which variant it is; taken for Distilled" in caplog.text
    assert same(helios.parts.transformer, states["transformer"]) and same(helios.parts.vae, states["vae"])
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
    with pytest.raises(ValueError, match="helios in its metadata is not JSON"):
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


def test_a_good_folder_loads(published):
    model = load(published)
    assert model.config.transformer == folders.CONFIG.transformer and model.config.variant == "distilled"
    assert model.config.defaults.steps == (2, 2, 2)


def test_missing_folder():
    with pytest.raises(ValueError, match="no checkpoint folder"):
        load("/nowhere/at/all")


def test_a_pipeline_of_another_kind_is_refused(folder):
    folders.write(folder / "model_index.json", {"_class_name": "WanPipeline"})
    with pytest.raises(ValueError, match="names the pipeline .WanPipeline."):
        load(folder)


def test_parts_of_different_checkpoints_are_refused(folder):
    folders.write(folder / "text_encoder" / "config.json", {"d_model": 4096})
    with pytest.raises(ValueError, match="width 20, the text encoder gives 4096"):
        load(folder)


@pytest.mark.parametrize("options", [{"backend": "cuda"}, {"weight_dtype": "int3"}])
def test_bad_options_are_refused(published, options):
    with pytest.raises(ValueError, match="wanted one of"):
        load(published, **options)
