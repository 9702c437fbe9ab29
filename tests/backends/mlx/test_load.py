"""Loading a transformer on MLX: strict, in every number format, wired on a GPU. Named: M25."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load as open_pipeline
from helios_video.helios_core.checkpoint.open import check_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig
from safetensors.torch import save_file
from support.transformer import SIZES

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
from helios_video.helios_core.backends.mlx import files as mlx_files  # noqa: E402
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.torch import files as torch_files  # noqa: E402
from helios_video.helios_core.backends.torch.quantising import quantise  # noqa: E402
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer as Torch  # noqa: E402
from support.mlx import error, load, perturb, write  # noqa: E402


@pytest.mark.parametrize("change", ["unknown", "missing", "misshapen"])
def test_m25_loading_is_strict(tmp_path, change):
    """A gain on history keys that the config does not speak of is refused, not dropped."""
    weights = Torch(TransformerConfig(**SIZES)).state_dict()
    name = "blocks.0.attn1.to_q.weight"
    if change == "unknown":
        weights[name := "blocks.0.attn1.history_key_scale"] = torch.ones(2)
    elif change == "missing":
        del weights[name]
    else:
        weights[name := "patch_mid.weight"] = torch.zeros(48, 2, 4, 4, 16)
    with pytest.raises(ValueError, match=rf"1 (unexpected|missing|misshapen): {name}"):
        check_part(write(tmp_path, weights, SIZES), mlx_load.shapes)


def test_training_leftovers_are_ignored(tmp_path):
    weights = Torch(TransformerConfig(**SIZES)).state_dict()
    check_part(write(tmp_path, {**weights, "gan_heads.0.weight": torch.ones(2)}, SIZES), mlx_load.shapes)


@pytest.mark.parametrize(
    ("version", "dtype", "told"), [("0.31.2", "int8", 1), ("0.31.2", "bf16", 0), ("0.32.0", "int8", 0)]
)
def test_a_version_with_wrong_quantised_products_is_named(monkeypatch, caplog, version, dtype, told):
    monkeypatch.setattr(mx, "__version__", version)
    helios = open_pipeline(backend="mlx", weight_dtype=dtype)
    assert helios.parts.transformer
    assert caplog.text.count(f"MLX {version}: on GPUs from M5 on") == told


def test_mlx_has_its_own_ways_only():
    for name, value in {"attention": "sage", "products": "scaled", "compile": "on"}.items():
        with pytest.raises(ValueError, match=f"{name} {value}: MLX has one way"):
            open_pipeline(backend="mlx", **{name: value})


@pytest.mark.parametrize("kind", ["fp8_e4m3fn", "int8", "int4"])
def test_quantised_files_widen_as_with_torch(tmp_path, kind):
    model, name = perturb(Torch(TransformerConfig(**SIZES))), "blocks.1.ffn.net.0.proj.weight"
    weights = model.state_dict()
    weights |= quantise(name, weights[name], kind)
    source = write(tmp_path, weights, SIZES)
    want = torch_files.widen(source.tensors[name])
    assert np.array_equal(np.asarray(mlx_files.widen(source.tensors[name])), want.numpy())
    assert error(np.asarray(load(source, mlx_load).blocks[1].ffn.net[0].proj.weight), want.numpy()) == 0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_numbers_of_every_format_are_read(tmp_path, dtype):
    """All 256 codes of the eight bit floats, NaN and infinity included; with one factor per layer, too."""
    if dtype.itemsize == 1:
        values = torch.arange(256).to(torch.uint8).view(dtype)
    else:
        values = torch.linspace(-3, 3, 256).to(dtype)
    save_file({"a": values.reshape(16, 16), "odd": torch.ones(3, dtype=torch.uint8)}, tmp_path / "x.safetensors")
    from helios_video.helios_core.checkpoint import headers
    from helios_video.helios_core.checkpoint.sources import Stored

    info = headers.read_header(tmp_path / "x.safetensors")["a"]
    got = mlx_files.read(Stored(info.file, "a", *info[1:])).astype(mx.float32)
    assert np.array_equal(np.asarray(got), values.reshape(16, 16).float().numpy(), equal_nan=True)


def test_what_mlx_cannot_do_is_said(tmp_path):
    source = write(tmp_path, Torch(TransformerConfig(**SIZES)).state_dict(), SIZES)
    for dtype, said in (("int8", "48 columns; MLX quantises multiples of 32"), ("fp9", "wanted auto, bf16")):
        with pytest.raises(ValueError, match=said):
            load(source, mlx_load, dtype)
    config = ModelConfig(transformer=TransformerConfig(**SIZES))
    with pytest.raises(ValueError, match="offload blocks: .* choose none or sequential"):
        mlx_load.load_transformer(source, config, dtype="auto", device=mlx_load.CPU, streamed=True)


@pytest.fixture
def limits(monkeypatch):
    """The limits of wired memory that a GPU is given, in order; at first it has one of 5 bytes."""
    mlx_load.empty_cache()  # models of other tests
    given = [5]

    def set_limit(limit):
        given.append(limit)
        return given[-2]

    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    monkeypatch.setattr(mlx_load, "kind", lambda device: "metal")
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 3 * 2**30})
    return given


def small(folder):
    folder.mkdir(exist_ok=True)
    return load(write(folder, Torch(TransformerConfig(**SIZES)).state_dict(), SIZES), mlx_load)


def test_weights_are_wired_on_a_gpu(tmp_path, limits):
    """The limit that Metal recommends, once there is Metal."""
    model = small(tmp_path)
    assert limits == [5, 3 * 2**30] and 0 < mlx_load.free_memory(None) < 3 * 2**30
    del model
    mlx_load.empty_cache()


def test_the_wired_limit_comes_back_when_the_last_model_is_let_go(tmp_path, limits):
    """Whatever somebody else had set; a model that is replaced by another one leaves the other's weights wired."""
    full = 3 * 2**30
    first, second = small(tmp_path / "a"), small(tmp_path / "b")
    assert limits == [5, full, full]
    del first
    mlx_load.empty_cache()
    assert limits == [5, full, full]
    del second
    mlx_load.empty_cache()
    assert limits == [5, full, full, 5]
    mlx_load.empty_cache()
    assert limits[-1] == 5 and len(limits) == 4
    third = small(tmp_path / "a")
    del third
    mlx_load.empty_cache()
    assert limits[4:] == [full, 5]


def test_a_pipeline_gives_the_wired_limit_back(limits):
    """As it lets the transformer go: with offload sequential that is after every chunk."""
    model = open_pipeline(backend="mlx", weight_dtype="fp32")
    assert model.parts.transformer is not None and limits[-1] == 3 * 2**30
    model.parts.release("transformer")
    assert limits[-1] == 5
