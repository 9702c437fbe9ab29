"""A folder in the published layout: shards, their index, keys and configs; what is broken is named. M4b, M25."""

import shutil

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import load_file, save_file
from support.published import CONFIG, FILE, TRANSFORMER, change, without, write


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
@pytest.mark.parametrize("file", ["transformer/a.safetensors", f"vae/{FILE}", "text_encoder/model.safetensors"])
def test_truncated_files_are_refused(folder, file, share):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cut short") as error:
        load(folder)
    assert file.split("/")[1] in str(error.value)


def test_a_missing_shard_is_named(folder):
    (folder / "transformer" / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks the shards \['b.safetensors'\]"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(folder, text):
    (folder / "transformer" / f"{FILE}.index.json").write_text(text)
    with pytest.raises(
        ValueError, match="index of safetensors shards|index.json (is not JSON|should hold a JSON object)"
    ):
        load(folder)


def test_of_several_indices_the_plain_one_counts(folder):
    plain = folder / "transformer" / f"{FILE}.index.json"
    (folder / "transformer" / "a.fp16.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    load(folder)
    plain.rename(folder / "transformer" / "b.fp32.safetensors.index.json")
    with pytest.raises(ValueError, match=r"a\.fp16.*b\.fp32.*leave the index of one set"):
        load(folder)


def test_two_files_without_an_index_are_refused(folder):
    (folder / "transformer" / f"{FILE}.index.json").unlink()
    with pytest.raises(ValueError, match="no index"):
        load(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    double = load_file(folder / "transformer" / "a.safetensors")
    change(folder / "transformer" / "b.safetensors", lambda tensors: {**tensors, **double})
    with pytest.raises(ValueError, match="two shards"):
        load(folder)


def test_pickles_are_refused(folder):
    (folder / "vae" / FILE).unlink()
    torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="pickles are not read"):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "scheduler", "model_index.json"])
def test_missing_parts_are_named(folder, part):
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=f"{part}.* is missing"):
        load(folder)


def test_broken_config_is_named(folder):
    (folder / "transformer" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load(folder)


@pytest.mark.parametrize("part,name", [("transformer", "patch_long.bias"), ("vae", "decoder.conv_in.bias")])
def test_m4b_a_missing_key_is_named(folder, part, name):
    """Nothing stays random: neither a transformer's key nor a VAE's."""
    for file in (folder / part).glob("*.safetensors"):
        change(file, without(name))
    with pytest.raises(ValueError, match=f"1 missing: {name}"):
        load(folder)


@pytest.mark.parametrize("part", ["transformer/a.safetensors", f"vae/{FILE}"])
def test_m25_an_unknown_key_is_an_error(folder, part):
    """Such as history_key_scale in a model whose config says is_amplify_history false."""
    change(folder / part, lambda tensors: {**tensors, "blocks.0.attn1.history_key_scale": torch.ones(2)})
    with pytest.raises(ValueError, match="1 unexpected: blocks.0.attn1.history_key_scale"):
        load(folder)


def test_m25_a_key_that_the_config_promises_is_wanted(folder):
    write(folder / "transformer" / "config.json", {**TRANSFORMER, "is_amplify_history": True})
    with pytest.raises(ValueError, match="2 missing: blocks.0.attn1.history_key_scale, blocks.1"):
        load(folder)


def test_misshapen_keys_are_named(folder):
    write(folder / "transformer" / "config.json", {**TRANSFORMER, "ffn_dim": 32})
    with pytest.raises(ValueError, match=r"6 misshapen: blocks.0.ffn.net.0.proj.bias \(16,\) instead of \(32,\)"):
        load(folder)


def test_a_checkpoint_of_another_model_is_refused(folder):
    for file in (folder / "transformer").glob("*.safetensors*"):
        file.unlink()
    save_file(
        {"blocks.0.attn1.to_q.weight": torch.zeros(4, 4), "rope.freqs": torch.zeros(2)}, folder / "transformer" / FILE
    )
    with pytest.raises(ValueError, match="missing.*unexpected.*rope.freqs.*misshapen.*of another model"):
        load(folder)


def test_old_name_of_the_output_table(folder, published):
    name = "norm_out.scale_shift_table"
    for file in (folder / "transformer").glob("*.safetensors"):
        change(file, lambda tensors: {"scale_shift_table" if k == name else k: v for k, v in tensors.items()})
    load(folder)
    sources = (open_part(path, "transformer") for path in (folder, published))
    old, new = (load_transformer(source, CONFIG, dtype="fp32", device="cpu") for source in sources)
    assert torch.equal(old.norm_out.scale_shift_table, new.norm_out.scale_shift_table)


def test_training_leftovers_are_ignored(folder):
    extra = {"gan_heads.0.weight": torch.ones(2), "blocks.0.attn1.q_loras.down.weight": torch.ones(2)}
    change(folder / "transformer" / "a.safetensors", lambda tensors: {**tensors, **extra})
    load_transformer(load(folder).checkpoint.sources["transformer"], CONFIG, dtype="fp32", device="cpu")
