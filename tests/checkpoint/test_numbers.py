"""Half precision, fp8 with and without factors: what the numbers of a file stand for. M25, V1."""

import json

import pytest
import torch
from helios_video.helios_core.backends.torch.load import load_text_encoder, load_transformer
from helios_video.helios_core.backends.torch.text_layers import KeptEmbedding, KeptLinear
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import save_file
from support.parts import CONFIG, NAMES, TEXT, bytes_tensor, same, scaled


def numbers(model) -> dict:
    """Name -> weight of a text encoder's layers, those that stay in fewer bits as they are widened."""
    modules = dict(model.named_modules(remove_duplicate=False))
    kept = {name: m for name, m in modules.items() if isinstance(m, (KeptLinear, KeptEmbedding))}
    words = torch.arange(TEXT["vocab_size"])
    wide = {f"{n}.weight": m.layer.weight if isinstance(m, KeptLinear) else m(words) for n, m in kept.items()}
    return wide | {n: t for n, t in model.state_dict().items() if n.rpartition(".layer.")[0] not in kept}


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
    loaded = numbers(encoder.model)
    assert torch.equal(loaded.pop("encoder.embed_tokens.weight"), loaded["shared.weight"])
    assert loaded.keys() == meant.keys()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in meant.items())
    red, blue = encoder(["a red circle", "blue square"]).padded
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
    with pytest.raises(ValueError, match="SelfAttention.q has 16 columns, which mxfp8"):
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
