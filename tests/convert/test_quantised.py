"""Quantised checkpoints: what is written is what quantising gives, once. M27."""

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.quantising import quantise
from helios_video.helios_core.checkpoint.names import WHOLE
from helios_video.helios_core.checkpoint.precision import QUANTISED, is_quantised, quantised_layout
from helios_video.helios_core.convert.convert import convert
from safetensors.torch import load_file, save_file
from support.files import small_files


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", ["x.safetensors", "folder"])
def test_quantised_checkpoints(published, tmp_path, kind, name):
    """Codes and factors are those of quantising on load; all other tensors stay as they are."""
    convert(published, tmp_path / name, kind=kind)
    before = load_file(published / "transformer" / "diffusion_pytorch_model.safetensors")
    if name == "folder":
        after = load_file(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors")
        assert small_files(tmp_path / name) == small_files(published)
    else:
        prefix = WHOLE["transformer"][0]
        after = {k.removeprefix(prefix): v for k, v in load_file(tmp_path / name).items() if k.startswith(prefix)}
    expected = {k: v for k, v in before.items() if not is_quantised(k)}
    for key in before.keys() - expected.keys():
        expected |= quantise(key, before[key], kind)
    assert after.keys() == expected.keys()
    assert all(v.dtype == after[k].dtype and torch.equal(v.float(), after[k].float()) for k, v in expected.items())
    model = load(tmp_path / name)
    assert model.checkpoint.sources["transformer"].quantised == kind
    direct, read = load(published, weight_dtype=kind).parts.transformer, model.parts.transformer
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(direct.buffers(), read.buffers(), strict=True))
    assert type(read.blocks[0].ffn.net[2]).__name__ == "QuantLinear"


@pytest.mark.parametrize("kind", QUANTISED)
def test_the_layout_is_what_quantising_gives(kind):
    for shape in ((8, 128), (6, 24), (4, 2)):
        parts = quantise("x.weight", torch.randn(shape), kind)
        names = {torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32", torch.bfloat16: "BF16"}
        names |= {torch.int8: "I8", torch.uint8: "U8"}
        found = {name: (names[value.dtype], tuple(value.shape)) for name, value in parts.items()}
        assert quantised_layout("x.weight", shape, kind) == found


def test_m27_a_quantised_checkpoint_is_not_quantised_again(published, tmp_path):
    convert(published, tmp_path / "q.safetensors", kind="int8")
    for kind in QUANTISED:
        with pytest.raises(ValueError, match="quantised already.*quantise the original"):
            convert(tmp_path / "q.safetensors", tmp_path / "qq.safetensors", kind=kind)
    convert(tmp_path / "q.safetensors", tmp_path / "folder")  # only moved, it is fine
    assert load(tmp_path / "folder").checkpoint.sources["transformer"].quantised == "int8"
    assert not (tmp_path / "qq.safetensors").exists()


@pytest.mark.parametrize("name", ["blocks.1.attn1.to_q.weight", "blocks.1.attn1.to_q.bias", "proj_out.weight"])
def test_m27_nan_is_refused_and_nothing_is_left(published, tmp_path, name):
    convert(published, tmp_path / "broken")
    file = tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state[name].view(-1)[3] = float("nan")
    save_file(state, file)
    for out in ("out.safetensors", "out"):
        with pytest.raises(ValueError, match=f"{name} holds NaN"):
            convert(tmp_path / "broken", tmp_path / out, kind="fp8_e4m3fn")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_comfyuis_scaled_fp8_stays_what_it_is(published, tmp_path):
    state = load_file(published / "text_encoder" / "model.safetensors")
    name = "encoder.block.0.layer.0.SelfAttention.q."
    state[f"{name}weight"] = state[f"{name}weight"].to(torch.float8_e4m3fn)
    scale, model = torch.tensor(0.5), torch.tensor(list(b"model"), dtype=torch.uint8)
    file = tmp_path / "umt5.safetensors"
    save_file(state | {f"{name}scale_weight": scale, "spiece_model": model}, file)
    (out,) = convert(file, tmp_path / "comfy", form="comfy")
    after = load_file(out)
    assert after.pop("scaled_fp8").dtype == torch.float8_e4m3fn and after[f"{name}scale_weight"] == 0.5
    assert after.keys() == load_file(file).keys() and torch.equal(after["spiece_model"], model)
    convert(published, tmp_path / "q.safetensors", kind="fp8_e4m3fn", parts=["transformer"])
    with pytest.raises(ValueError, match="ComfyUI itself does not read"):
        convert(tmp_path / "q.safetensors", tmp_path / "other", form="comfy")
