"""weight_dtype auto: as stored, but float32 in bfloat16 where the device computes that at speed, and it is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helios_video.helios_core.backends.torch import load as load_module
from helios_video.helios_core.backends.torch import load_transformer, load_vae
from helios_video.helios_core.checkpoint import compute_format, open_part, precision
from helios_video.helios_core.devices import needs
from support.published import CONFIG, make_published


def source(stored: str):
    return SimpleNamespace(path="x", tensors={"proj_out.weight": SimpleNamespace(dtype=stored)})


@pytest.mark.parametrize(
    "stored, asked, fast, wanted",
    [
        ("F32", "auto", True, "BF16"), ("F32", "auto", False, "F32"), ("F16", "auto", True, "F16"),
        ("BF16", "auto", False, "BF16"), ("F8_E4M3", "auto", False, "BF16"), ("F32", "fp32", True, "F32"),
        ("F32", "fp16", True, "F16"),
    ],
)  # fmt: skip
def test_what_is_computed_in(stored, asked, fast, wanted):
    assert compute_format(source(stored), asked, fast_bf16=fast) == wanted


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="weight_dtype 'fp9': wanted auto, bf16, fp16, fp32"):
        compute_format(source("F32"), "fp9", fast_bf16=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("formats") / "published")


def test_a_cpu_keeps_what_is_stored(published):
    model = load_transformer(open_part(published, "transformer"), CONFIG, dtype="auto", device="cpu")
    assert model.dtype == torch.float32


def test_a_fast_device_computes_float32_in_bfloat16_and_says_so_once(published, monkeypatch, caplog):
    precision.tell_narrowed.cache_clear()
    monkeypatch.setattr(load_module, "fast_bf16", lambda device: True)
    stored = open_part(published, "transformer")
    for _ in range(2):
        model = load_transformer(stored, CONFIG, dtype="auto", device="cpu")
    assert model.dtype == torch.bfloat16 and model.blocks[0].scale_shift_table.dtype == torch.float32
    assert caplog.text.count("is stored in fp32 and computed in bf16") == 1
    parts = {name: open_part(published, name) for name in ("transformer", "vae", "text_encoder")}
    found = needs.estimate(parts, CONFIG, width=64, height=64, fast_bf16=True)
    assert found.parts["transformer"] == sum(t.nbytes for t in model.state_dict().values())
    assert load_transformer(stored, CONFIG, dtype="fp32", device="cpu").dtype == torch.float32


def test_the_vae_is_as_asked_for(published, monkeypatch):
    monkeypatch.setattr(load_module, "fast_bf16", lambda device: True)
    assert load_vae(open_part(published, "vae"), CONFIG, device="cpu").dtype == torch.float32


@pytest.mark.parametrize("capability, fast", [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_cuda_is_fast_from_compute_capability_8_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert load_module.fast_bf16("cuda") is fast and not load_module.fast_bf16("cpu")


def test_mlx_narrows_on_its_gpus_alone(monkeypatch):
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    from helios_video.helios_core.backends.mlx import load as mlx_load

    assert not mlx_load.fast_bf16(mlx_load.CPU)
    for kind, dtype in (("cpu", mx.float32), ("metal", mx.bfloat16)):
        monkeypatch.setattr(mlx_load, "kind", lambda device, kind=kind: kind)
        assert mlx_load.choose_dtype(source("F32"), "auto", None) == dtype
