"""Configs as files have them: what is read, what is refused, which variant they make. Named: C3."""

import dataclasses

import pytest
from helios_video.helios_core.config.model import ScheduleConfig, TransformerConfig, find_variant, read_folder
from support.published import make_published, write

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


def test_generation_config_fills_in_over_the_variants_preset(tmp_path):
    """A file that names only a size keeps the variant's steps; the solver is the scheduler's own."""
    folder = make_published(tmp_path / "checkpoint")
    write(folder / "model_index.json", {"_class_name": "HeliosPyramidPipeline", "is_distilled": False})
    write(folder / "scheduler" / "scheduler_config.json", {"_class_name": "HeliosScheduler", "scheduler_type": "euler"})
    write(folder / "generation_config.json", {"width": 64, "height": 128})
    config = read_folder(folder)
    assert config.variant == "mid" and config.defaults.steps == (20, 20, 20)
    assert (config.defaults.width, config.defaults.height, config.defaults.solver) == (64, 128, "euler")
    write(folder / "generation_config.json", {"steps": [8, 8, 8], "cfg": 3.0, "solver": "dmd"})
    config = read_folder(folder)
    assert config.defaults.steps == (8, 8, 8) and config.defaults.solver == "dmd" and config.defaults.cfg == 3.0
    write(folder / "generation_config.json", {"colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        read_folder(folder)


def test_c3_shift_type_is_the_checkpoints():
    """What scheduler_config.json leaves out follows the scheduler class, whose defaults differ."""
    read = ScheduleConfig.from_dict
    assert read({"_class_name": "HeliosDMDScheduler"}).time_shift_type == "linear"
    assert read({"_class_name": "HeliosScheduler"}).time_shift_type == "exponential"
    assert read({"_class_name": "HeliosDMDScheduler", "time_shift_type": "exponential"}) == dataclasses.replace(
        ScheduleConfig(scheduler_type="dmd"), time_shift_type="exponential"
    )


def test_variants():
    """Base by its one stage, Distilled by scheduler class, by the older scheduler_type, or by the pipeline's flag."""
    read = ScheduleConfig.from_dict
    dmd = read({"_class_name": "HeliosDMDScheduler"})
    older = read({"_class_name": "HeliosScheduler", "scheduler_type": "dmd"})
    mid = read({"_class_name": "HeliosScheduler", "scheduler_type": "unipc"})
    base = read({"_class_name": "HeliosScheduler", "stages": 1, "stage_range": [0, 1]})
    assert dmd.solver == older.solver == "dmd" and mid.solver == base.solver == "unipc"
    assert find_variant({"_class_name": "HeliosPyramidPipeline"}, dmd) == "distilled"
    assert find_variant({"_class_name": "HeliosPyramidPipeline"}, older) == "distilled"
    assert find_variant({"_class_name": "HeliosPyramidPipeline", "is_distilled": True}, mid) == "distilled"
    assert find_variant({"_class_name": "HeliosPyramidPipeline", "is_distilled": False}, mid) == "mid"
    assert find_variant({"_class_name": "HeliosPipeline"}, base) == "base"


def test_configs_that_diffusers_writes_are_read():
    from diffusers import HeliosDMDScheduler, HeliosScheduler, HeliosTransformer3DModel

    for oracle in (HeliosDMDScheduler(), HeliosScheduler(), HeliosScheduler(stages=1, stage_range=[0, 1])):
        raw = {**oracle.config, "_class_name": type(oracle).__name__}
        config = ScheduleConfig.from_dict(raw)
        assert config.stages == oracle.config.stages and config.time_shift_type == oracle.config.time_shift_type
    tiny = dict(num_attention_heads=2, attention_head_dim=24, rope_dim=(8, 8, 8), num_layers=1, ffn_dim=8)
    transformer = TransformerConfig.from_dict(dict(HeliosTransformer3DModel(**tiny).config))
    assert transformer == dataclasses.replace(TransformerConfig(), **tiny)


@pytest.mark.parametrize(
    "raw,words",
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "UniPCMultistepScheduler"),
        ({"stages": 3, "stage_range": [0, 1]}, "4 numbers"),
        ({"time_shift_type": "cubic"}, "cubic"),
        ({"use_dynamic_shifting": True, "shift": 3.0}, "shift 1.0"),
        ({"colour": 1}, "colour"),
        ({"prediction_type": "epsilon"}, "epsilon"),
        ({"version": "v2"}, "version 'v2' instead of 'v1'.*v2 has other sigmas"),
    ],
)
def test_schedule_configs_that_are_refused(raw, words):
    with pytest.raises(ValueError, match=words):
        ScheduleConfig.from_dict(raw)


@pytest.mark.parametrize(
    "raw,words",
    [
        ({"restrict_self_attn": True}, "restrict_self_attn"),
        ({"restrict_lora": True}, "restrict_lora True instead of False.*layers of its own for the history"),
        ({"image_dim": 1280}, "image_dim 1280 instead of None.*no image embedding"),
        ({"qk_norm": None}, "qk_norm"),
        ({"guidance_cross_attn": False}, "guidance_cross_attn"),
        ({"rope_dim": [44, 42, 40]}, "rope_dim"),
        ({"heads": 40}, "heads"),
    ],
)
def test_transformer_configs_that_are_refused(raw, words):
    with pytest.raises(ValueError, match=words):
        TransformerConfig.from_dict(raw)


def test_what_the_official_merge_tool_writes_is_read():
    """Its transformer's configuration has every argument of the network, most of them of training only."""
    merged = dict(image_dim=None, is_train_restrict_lora=False, restrict_lora=False, restrict_lora_rank=128)
    merged |= dict(is_use_gan=True, is_use_gan_hooks=True, is_use_gan_final=True, gan_cond_map_dim=768)
    merged |= dict(gan_hooks=[5, 15, 25, 35], restrict_self_attn=False)
    assert TransformerConfig.from_dict(merged) == TransformerConfig()
    assert ScheduleConfig.from_dict({"version": "v1"}) == ScheduleConfig()
