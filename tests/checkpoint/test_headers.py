"""Broken, foreign and incomplete checkpoints, each refused by name before anything long: M2, M4b, M25."""

import json
import shutil
import struct

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.load import load_transformer, load_vae
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import headers, inferred
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig, read_folder
from safetensors.torch import load_file, save_file

TRANSFORMER = dict(num_attention_heads=2, attention_head_dim=12, rope_dim=(4, 4, 4), ffn_dim=16)
TRANSFORMER |= dict(num_layers=2, text_dim=20, freq_dim=16)
TEXT = dict(vocab_size=8, d_model=20, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
VAE = dict(base_dim=4, dim_mult=(1, 1, 1, 1), num_res_blocks=1)
CONFIG = ModelConfig(transformer=TransformerConfig(**TRANSFORMER), vae=VAEConfig(**VAE))
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny folder in the published layout, the transformer in two shards."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in ("transformer", "vae", "scheduler", "text_encoder", "tokenizer"):
        (folder / part).mkdir()
    write(folder / "model_index.json", {"_class_name": "HeliosPyramidPipeline", "is_distilled": True})
    write(folder / "transformer" / "config.json", {"_class_name": "HeliosTransformer3DModel", **TRANSFORMER})
    write(folder / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", **VAE})
    write(folder / "scheduler" / "scheduler_config.json", {"_class_name": "HeliosDMDScheduler"})
    state = HeliosTransformer(CONFIG.transformer).state_dict()
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({k: state[k] for k in keys}, folder / "transformer" / file)
    index = {"metadata": {}, "weight_map": {k: file for file, keys in shards.items() for k in keys}}
    write(folder / "transformer" / f"{FILE}.index.json", index)
    save_file(WanVAE(CONFIG.vae).state_dict(), folder / "vae" / FILE)
    text = {"shared.weight": (8, 20), **inferred.umt5(TEXT)}
    save_file({k: torch.zeros(shape) for k, shape in text.items()}, folder / "text_encoder" / "model.safetensors")
    write(folder / "text_encoder" / "config.json", TEXT)
    write(folder / "tokenizer" / "tokenizer.json", {})
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


def change(file, function):
    """Rewrites a safetensors file with what `function` makes of its tensors."""
    save_file(function(load_file(file)), file)


def without(*names):
    return lambda tensors: {k: v for k, v in tensors.items() if k not in names}


def raw(path, header, data=b""):
    """A safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start, stop, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_headers_of_good_files(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "empty": torch.zeros(0, 5)}
    save_file(tensors, path, metadata={"format": "pt"})
    found = headers.read_header(path)
    assert {k: v.shape for k, v in found.items()} == {"a": (2, 3), "b": (4,), "empty": (0, 5)}
    assert found["b"].dtype == "BF16" and found["a"].file == path


BROKEN = {
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, b"\0" * 6, "b overlaps"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12, "b overlaps"),
    "wrong length": ({"a": entry(0, 8)}, b"\0" * 8, "wrong length"),
    "negative": ({"a": entry(-4, 0)}, b"", "overlaps"),
    "cut short": ({"a": entry(0, 4)}, b"\0" * 3, "names 4 bytes of weights, it holds 3"),
    "too long": ({"a": entry(0, 4)}, b"\0" * 5, "cut short or too long"),
    "unknown dtype": ({"a": entry(0, 4, dtype="F31")}, b"\0" * 4, "unknown dtype F31"),
    "dtype of another kind": ({"a": entry(0, 4, dtype=["F32"])}, b"\0" * 4, "unknown dtype"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4, "malformed"),
    "three offsets": ({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, b"\0" * 4, "malformed"),
    "shape of another kind": ({"a": entry(0, 4) | {"shape": 1}}, b"\0" * 4, "malformed"),
    "entry of another kind": ({"a": 5}, b"", "malformed"),
    "list": ([1, 2], b"", "malformed"),
    "not JSON": (b"{not json}", b"", "not JSON"),
    "not UTF-8": (b"\xff\xfe\xff", b"", "not JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused(tmp_path, name):
    header, data, words = BROKEN[name]
    with pytest.raises(ValueError, match=words) as error:
        headers.read_header(raw(tmp_path / "x.safetensors", header, data))
    assert "x.safetensors" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 8, b"\x10" + b"\0" * 9, b"PK\x03\x04" + b"\0" * 60])
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file|not JSON"):
        headers.read_header(path)


def test_a_good_folder_loads(published):
    model = load(published)
    assert model.config.transformer == CONFIG.transformer and model.config.variant == "distilled"
    assert model.config.defaults.steps == (2, 2, 2)


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
    with pytest.raises(ValueError, match="index of safetensors shards"):
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


def test_missing_folder():
    with pytest.raises(ValueError, match="no checkpoint folder"):
        load("/nowhere/at/all")


def test_broken_config_is_named(folder):
    (folder / "transformer" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
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


def test_a_pipeline_of_another_kind_is_refused(folder):
    write(folder / "model_index.json", {"_class_name": "WanPipeline"})
    with pytest.raises(ValueError, match="names the pipeline .WanPipeline."):
        load(folder)


def test_parts_of_different_checkpoints_are_refused(folder):
    write(folder / "text_encoder" / "config.json", {"d_model": 4096})
    with pytest.raises(ValueError, match="width 20, the text encoder gives 4096"):
        load(folder)


def test_m2_m4b_every_tensor_arrives(published):
    """Strict loading: what the files hold is what the models hold, bit for bit."""
    stored = {**load_file(published / "transformer" / "a.safetensors")}
    stored |= load_file(published / "transformer" / "b.safetensors")
    model = load_transformer(open_part(published, "transformer"), CONFIG, dtype="auto", device="cpu")
    state = model.state_dict()
    for name, tensor in stored.items():
        if name not in state:  # the joined self-attention projections
            block, attention, part, kind = name.rsplit(".", 3)
            joined = state[f"{block}.{attention}.to_qkv.{kind}"].chunk(3)
            state[name] = joined[("to_q", "to_k", "to_v").index(part)]
        assert torch.equal(state[name], tensor), name
    vae = load_vae(open_part(published, "vae"), CONFIG, device="cpu")
    for name, tensor in load_file(published / "vae" / FILE).items():
        assert torch.equal(vae.state_dict()[name], tensor), name
    assert not any(p.requires_grad or p.is_meta for m in (model, vae) for p in m.parameters())


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
    load_transformer(load(folder).sources["transformer"], CONFIG, dtype="fp32", device="cpu")


@pytest.mark.parametrize("dtype,wanted", [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_m8_weight_dtypes(published, dtype, wanted):
    """Matrices in the dtype asked for; the reference's float32 islands stay float32."""
    model = load_transformer(open_part(published, "transformer"), CONFIG, dtype=dtype, device="cpu")
    assert model.dtype == model.blocks[0].ffn.net[2].weight.dtype == model.patch_long.weight.dtype == wanted
    islands = ("time_embedder", "scale_shift_table", "norm2")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (torch.float32 if any(part in name for part in islands) else wanted), name


def test_auto_dtype_is_the_stored_one(folder):
    for file in (folder / "transformer").glob("*.safetensors"):
        change(file, lambda tensors: {k: v.bfloat16() for k, v in tensors.items()})
    model = load_transformer(open_part(folder, "transformer"), CONFIG, dtype="auto", device="cpu")
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"backend": "cuda"}, {"weight_dtype": "int3"}])
def test_bad_options_are_refused(published, options):
    with pytest.raises(ValueError, match="wanted one of"):
        load(published, **options)


def test_generation_config_fills_in_over_the_variants_preset(folder):
    """A file that names only a size keeps the variant's steps; the solver is the scheduler's own."""
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
