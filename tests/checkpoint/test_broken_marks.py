"""Quantised layers of ComfyUI that are broken, each in ten ways: a clear error that names the layer, never noise."""

import json

import numpy as np
import pytest
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.checkpoint.sources import open_part
from support.comfy_quants import FORMS, random_layer, write

LAYER = "blocks.0.ffn.net.2"
ROWS, COLUMNS = 256, 512


def said(parts, **changes):
    """The layer's JSON with changes; None takes an entry away."""
    found = json.loads(bytes(parts["comfy_quant"])) | changes
    found = {name: value for name, value in found.items() if value is not None}
    return parts | {"comfy_quant": np.frombuffer(json.dumps(found).encode(), np.uint8)}


def without(parts, name):
    return {key: value for key, value in parts.items() if key != name}


def factor(parts) -> str:
    return next(name for name in ("weight_s_rel", "weight_scale") if name in parts)


def bare(parts, text: bytes):
    return parts | {"comfy_quant": np.frombuffer(text, np.uint8)}


def wider(parts):
    """A factor with more numbers than the weight has rows or groups."""
    value = np.asarray(parts[factor(parts)])
    return parts | {factor(parts): np.zeros((7, 9), value.dtype)}


def poisoned(parts):
    """A factor that is NaN, in whatever type it is."""
    name = next((n for n in ("weight_scale_2", "weight_s_channel") if n in parts), factor(parts))
    value = np.array(parts[name])
    value.reshape(-1)[0] = 255 if value.dtype == np.uint8 else np.nan
    return parts | {name: value}


WAYS = {
    "no factor": lambda p: without(p, factor(p)),
    "a factor of another size": wider,
    "a factor that is NaN": poisoned,
    "an unknown format": lambda p: said(p, format="int3_magic"),
    "no format": lambda p: said(p, format=None),
    "no JSON": lambda p: bare(p, b"\x00\xff{"),
    "a list": lambda p: bare(p, b"[1, 2]"),
    "the format of another": lambda p: said(p, format="mxfp8" if p["weight"].dtype == np.int8 else "int8_tensorwise"),
    "no weight": lambda p: without(p, "weight"),
    "a weight of three axes": lambda p: p | {"weight": np.asarray(p["weight"]).reshape(16, -1, 16)},
    "a part of another form": lambda p: (
        p | {"weight_codebook" if "weight_codebook" not in p else "weight_zeros": np.ones(3, np.float32)}
    ),
    "an endless rotation": lambda p: said(p, convrot=True, convrot_groupsize=float("inf"), params=None),
    "a rotation that divides nothing": lambda p: said(p, convrot=True, convrot_groupsize=7, params=None),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_clear_error(form, way, tmp_path):
    if form.startswith("float8") and way in ("no factor", "a weight of three axes"):
        pytest.skip("fp8 may have no factor, and any number of axes")
    parts, dtypes, _ = random_layer(form, np.random.default_rng(0), ROWS, COLUMNS)
    parts = {f"{LAYER}.{name}": value for name, value in WAYS[way](parts).items()}
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    kinds = {f"{LAYER}.{name}": kind for name, kind in dtypes.items()}
    write(tmp_path / "transformer" / "x.safetensors", parts, kinds)
    with pytest.raises(ValueError) as error:
        source = open_part(tmp_path, "transformer")
        widen(source.tensors[f"{LAYER}.weight"])
    text = str(error.value)
    assert LAYER in text and len(text) < 500 and "cannot be told" not in text, text


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"layers": 3}', '{"layers": {"a": 1}}', '{"layers": {"gone": {"format": "nvfp4"}}}']
)
def test_broken_metadata(text, tmp_path):
    tensors = {"a.weight": np.zeros((4, 4), np.float32), "patch_long.weight": np.zeros(4, np.float32)}
    write(tmp_path / "x.safetensors", tensors, {}, {"_quantization_metadata": text})
    with pytest.raises(ValueError, match="in its metadata|layer's format|gone"):
        open_part(tmp_path / "x.safetensors", "transformer")


def test_types_that_only_marks_explain(tmp_path):
    """E8M0 and F4 are types of the format; without marks they mean nothing."""
    for dtype, size in (("F8_E8M0", 32), ("F4", 16)):
        tensors = {f"{LAYER}.weight": np.zeros(size, np.uint8), "patch_long.weight": np.zeros(4, np.float32)}
        path = tmp_path / f"{dtype}.safetensors"
        write(path, tensors, {f"{LAYER}.weight": dtype})
        if dtype == "F4":
            path.write_bytes(path.read_bytes().replace(b"[16]", b"[32]"))
        with pytest.raises(ValueError, match="no quantised form of this is known"):
            open_part(path, "transformer")


E4M3 = {"comfy_quant": np.frombuffer(b'{"format": "float8_e4m3fn"}', np.uint8), "weight_scale": np.float32(1)}
FLAT = {
    "F8_E4M3": {"weight": np.uint8(1), **E4M3},
    "I8": {"weight": np.int8(1), "scale_weight": np.ones(2, np.float32)},
    "U8": {"weight": np.uint8(1), "zero_weight": np.float32(1)},
    "I8, no factors": {"weight": np.ones((4, 4), np.int8), "scale_weight": np.ones((4, 0), np.float32)},
}


@pytest.mark.parametrize("kind", FLAT)
def test_weights_without_axes_and_factors_without_numbers(kind, tmp_path):
    tensors = {f"{LAYER}.{name}": value for name, value in FLAT[kind].items()}
    tensors |= {"patch_long.weight": np.zeros(4, np.float32)}
    write(tmp_path / "x.safetensors", tensors, {f"{LAYER}.weight": kind[:7].partition(",")[0]})
    with pytest.raises(ValueError, match=LAYER):
        open_part(tmp_path / "x.safetensors", "transformer")
