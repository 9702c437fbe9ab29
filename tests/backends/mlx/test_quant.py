"""Quantised weights on MLX: made there, taken from torch's files, multiplied, saved, counted. Named: M8, M27."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helios_video.helios_core import load, pipeline
from helios_video.helios_core.backends.torch.quant import dequantise
from helios_video.helios_core.backends.torch.quantising import quantise
from helios_video.helios_core.checkpoint import precision
from helios_video.helios_core.checkpoint.precision import KINDS
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig
from helios_video.helios_core.convert import convert
from helios_video.helios_core.devices import libraries, needs
from helios_video.helios_core.history.window import History
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.mlx import WITHOUT_TORCH, error
from support.quant import build, gaussian

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends.mlx import files, quant  # noqa: E402
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

NAME = "blocks.0.ffn.net.2.weight"
LAYER = NAME.removesuffix("weight")
INTEGER = [kind for kind in KINDS if not kind.startswith("fp8")]
LIMITS = {"int8": 1.5e-2, "int4": 1.5e-1}  # relative error of a forward
SIZES = dict(num_attention_heads=2, attention_head_dim=128, rope_dim=(44, 42, 42), ffn_dim=1024, num_layers=6)
SIZES |= dict(text_dim=64, freq_dim=32)  # 6.8 million parameters


def numbers(x):
    """An MLX array's bits as numpy."""
    return np.array(x.astype(mx.float32))


@pytest.mark.parametrize("kind", INTEGER)
def test_codes_and_factors_are_those_of_torch(kind):
    """int8 to the bit; int4's sums are ordered otherwise, which one code in a thousand may feel."""
    weight = 0.02 * gaussian(64, 512)
    want, got = quantise(NAME, weight, kind), quant.quantise(NAME, mx.array(weight.numpy()), kind)
    assert list(got) == list(want)
    for name in want:
        mine, theirs = numbers(got[name]), want[name].float().numpy()
        assert mine.shape == theirs.shape and np.mean(mine != theirs) <= (0 if "int8" in kind else 1e-3)


@pytest.mark.parametrize("kind", INTEGER)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_layer_of_torchs_codes_is_torchs_weight(kind, dtype):
    """Repacked exactly: every code of every row, also where rows are joined; rounded once to the layer's type."""
    weight = gaussian(24, 256)
    stored = {name: mx.array(x.float().numpy() if x.is_floating_point() else x.numpy()) for name, x in
              quantise(NAME, weight, kind).items()}  # fmt: skip
    parts = [stored.get(LAYER + part) for part in ("weight", "scale_weight", "zero_weight")]
    bias = mx.zeros(24, dtype=getattr(mx, dtype))
    layer = quant.QuantLinear(*quant.pack(*parts), bias)
    want = dequantise(*[*quantise(NAME, weight, kind).values(), None][:3], torch.float32)
    rounded = want.to(getattr(torch, dtype)).float().numpy()
    assert layer.dtype == layer.weight.dtype == getattr(mx, dtype)
    assert np.array_equal(numbers(layer.weight), rounded)
    joined = quant.QuantLinear.join([layer, layer])
    assert np.array_equal(numbers(joined.weight), np.concatenate([rounded] * 2)) and joined.bias.shape == (48,)


@pytest.mark.parametrize("factors", ["one", "rows", "long groups"])
def test_longer_groups_become_several(factors):
    codes = torch.randint(-128, 128, (8, 512), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    scale = {"one": torch.tensor(0.5), "rows": torch.rand(8), "long groups": torch.rand(8, 2)}[factors]
    layer = quant.QuantLinear(*quant.pack(mx.array(codes.numpy()), mx.array(scale.numpy()), None), mx.zeros(8))
    assert error(numbers(layer.weight), dequantise(codes, scale, None, torch.float32)) < 1e-6
    assert layer.how == {"group_size": 128, "bits": 8}


@pytest.mark.parametrize("kind", INTEGER)
@pytest.mark.parametrize("dtype,bound", [("float32", 2e-6), ("float16", 1e-3)])
def test_the_gpus_kernel_gives_the_widened_weights_product(kind, dtype, bound, monkeypatch):
    """MLX's own, on the CPU; in bfloat16 it adds up in bfloat16 there, so on a CPU the weight is widened instead."""
    weight, x = gaussian(64, 256), mx.array(gaussian(2, 5, 256).numpy()).astype(getattr(mx, dtype))
    layer = quant.make_layer(NAME, mx.array(weight.numpy()), kind, mx.ones(64, dtype=getattr(mx, dtype)))
    want = layer(x)
    monkeypatch.setattr(quant, "on_cpu", lambda: False)
    assert layer(x).dtype == want.dtype == getattr(mx, dtype) and want.shape == (2, 5, 64)
    assert error(numbers(layer(x)), numbers(want)) < bound


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A transformer of 7 million parameters whose matrices keep the size of their inputs, and its inputs."""
    model, _ = build(**SIZES)
    folder = tmp_path_factory.mktemp("large") / "transformer"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES))
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 10e6
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 16, 2, 8, 8, generator=g), torch.randn(1, 32, SIZES["text_dim"], generator=g)
    parts = History(torch.randn(1, 16, 19, 8, 8, generator=g), torch.randn(1, 16, 1, 8, 8, generator=g)).parts(2)
    source, config = open_part(folder.parent, "transformer"), ModelConfig(TransformerConfig(**SIZES))

    def run(weight_dtype, dtype="auto"):
        """A forward of the checkpoint at that choice; dtype: of all that is not quantised."""
        model = mlx_load.load_transformer(source, config, dtype=weight_dtype, device=mlx_load.CPU)
        if dtype == "bf16":
            cast(model)
        return np.array(model.velocity(model.array(x), 500.0, model.text_context(text), model.history_context(parts)))

    return run, run("fp32"), run("bf16")


def cast(model):
    """All but the islands to bfloat16, as in a checkpoint that is stored so."""
    for name, p in tree_flatten(model.parameters()):
        if not precision.is_float32(name) and p.dtype == mx.float32:
            model.load_weights([(name, p.astype(mx.bfloat16))], strict=False)


@pytest.mark.parametrize("kind,dtype", [*((kind, "fp32") for kind in INTEGER), ("int8", "bf16"), ("int4", "bf16")])
def test_the_error_of_a_forward(large, kind, dtype):
    """Measured: int8 .0056 to .0062, int4 .072 to .089 by group size; in bfloat16 against bfloat16 .0078 and .083."""
    run, *wants = large
    limit = LIMITS[kind[:4]]
    assert limit / 5 < error(run(kind, dtype), wants[dtype == "bf16"]) < limit


@pytest.mark.parametrize("form,sizes", [("int8", ("_g32", "_g64", "")), ("int4", ("_g32", "", "_g128"))])
def test_smaller_groups_are_more_exact(form, sizes):
    weight = mx.array(gaussian(64, 512).numpy())
    layers = [quant.make_layer(NAME, weight, form + size, mx.zeros(64)) for size in sizes]
    errors = [error(layer.weight, weight) for layer in layers]
    assert errors[0] * 1.04 < errors[1] < errors[2] / 1.04
    assert [layer.how["group_size"] for layer in layers] == [32, 64, 128]


@pytest.mark.parametrize("kind", INTEGER)
def test_m8_only_attention_and_feed_forward_are_quantised(kind):
    """Float32 islands, embeddings, biases and the text and output projections keep their types and numbers."""
    model = load(backend="mlx", weight_dtype=kind).parts.transformer
    plain = dict(tree_flatten(load(backend="mlx").parts.transformer.parameters()))
    found = dict(tree_flatten(model.parameters()))
    layers = [name for name, module in model.named_modules() if isinstance(module, quant.QuantLinear)]
    assert len(layers) == 8 * len(model.blocks)
    codes = {f"{layer}.{part}" for layer in layers for part in ("codes", "scale", "zero")}
    assert set(plain) - set(found) == {f"{layer}.weight" for layer in layers} and codes < set(found)
    kept = set(found) - codes
    assert all(found[n].dtype == plain[n].dtype and bool(mx.array_equal(found[n], plain[n])) for n in kept)
    assert {found[n].dtype for n in kept if precision.is_float32(n)} == {mx.float32}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """helios-tiny as `helios convert --quantize` saves it with torch: the file of a kind."""
    made, folder = {}, tmp_path_factory.mktemp("converted")

    def of(kind):
        if kind not in made:
            made[kind] = folder / f"{kind}.safetensors"
            convert(pipeline.TINY, made[kind], kind=kind)
        return made[kind]

    return of


@pytest.mark.parametrize("kind", INTEGER)
def test_m27_a_saved_model_is_the_one_that_is_quantised_as_it_loads(converted, kind):
    """It says itself what it is; int8 to the bit, int4 to torch's own sums."""
    read, made = load(converted(kind), backend="mlx"), load(backend="mlx", weight_dtype=kind)
    assert read.checkpoint.sources["transformer"].metadata[precision.METADATA] == kind
    layers = [m.parts.transformer.blocks[1].ffn.net[2] for m in (read, made)]
    assert layers[0].how == layers[1].how and layers[0].how["group_size"] == precision.group_size(kind, 640)
    differ = np.mean(np.array(layers[0].codes) != np.array(layers[1].codes))
    assert differ <= (0 if kind.startswith("int8") else 0.01)
    again = load(converted(kind), backend="mlx", weight_dtype=kind)
    assert np.array_equal(np.array(again.parts.transformer.blocks[1].ffn.net[2].codes), np.array(layers[0].codes))


@pytest.mark.parametrize("kind", ["int8", "int4_g32"])
def test_a_chunk_of_quantised_weights_is_that_of_torch(converted, kind):
    """From the same file, over history and stages; weights are the same numbers, so only rounding differs."""
    chunks = []
    for name in ("mlx", "torch"):
        model = load(converted(kind), backend=name)
        text = np.random.default_rng(0).standard_normal((1, 8, model.config.transformer.text_dim), np.float32)
        net = model.parts.transformer
        steps = model.sample(model.history(64, 64), net.array(text), seed=1, steps=(1, 1, 1), boost_first_chunk=False)
        chunks.append([*steps][-1].latent)
    assert error(*chunks) < 0.03  # bfloat16 products


def test_widened_on_request_and_where_mlx_has_no_such_layer(converted):
    widened = load(converted("int8"), backend="mlx", weight_dtype="bf16").parts.transformer
    assert type(widened.blocks[0].ffn.net[2]).__name__ == "Linear"
    model = load(converted("fp8_e4m3fn"), backend="mlx").parts.transformer
    assert model.blocks[0].ffn.net[2].weight.dtype == mx.bfloat16


def test_m27_what_cannot_be_quantised_is_refused(converted):
    """Before anything loads, where the file or the choice says it."""
    for kind, asked in (("int8", "int4"), ("int4", "int8"), ("int8", "int8_g64"), ("fp8_e4m3fn", "int8")):
        with pytest.raises(ValueError, match=f"holds {kind} weights.*would add both errors.*auto or {kind}"):
            load(converted(kind), backend="mlx", weight_dtype=asked)
    with pytest.raises(ValueError, match="fp8_e4m3fn: MLX has no such layers; choose int8, int4"):
        load(backend="mlx", weight_dtype="fp8_e4m3fn")
    weight = mx.array(gaussian(4, 64).numpy())
    with pytest.raises(ValueError, match="wanted one of fp8_e4m3fn, int8, int4, int8_g32"):
        quant.quantise(NAME, weight, "int3")
    with pytest.raises(ValueError, match="quantised already"):
        quant.quantise(NAME, quant.quantise(NAME, weight, "int8")[NAME], "int4")
    with pytest.raises(ValueError, match=f"{NAME} has 48 columns; MLX quantises multiples of 32"):
        quant.quantise(NAME, weight[:, :48], "int8")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{NAME} holds NaN or infinity"):
            quant.quantise(NAME, mx.where(mx.arange(64) == 3, bad, weight), "int4")


def test_m27_a_nan_in_a_checkpoint_is_named(tmp_path):
    """In a bias too, which is copied and not quantised."""
    for name in (NAME, f"{LAYER}bias"):
        broken = shutil.copytree(pipeline.TINY, tmp_path / name)
        file = next((broken / "transformer").glob("*.safetensors"))
        weights = load_file(file)
        weights[name].view(-1)[3] = float("nan")
        save_file(weights, file)
        with pytest.raises(ValueError, match=f"{name} holds NaN or infinity"):
            mlx_load.check_finite(name, open_part(broken, "transformer").tensors[name])


@pytest.mark.parametrize("kind", ["int8_g64", "int4"])
def test_m27_conversion_without_torch(converted, tmp_path, kind):
    """The same file as with torch: every other tensor and document copied, int8 to the bit."""
    out = tmp_path / "out.safetensors"
    line = ["convert", str(pipeline.TINY), str(out), "--quantize", kind]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == f"{out}\n", done.stderr
    with safe_open(out, framework="np") as mine, safe_open(converted(kind), framework="np") as theirs:
        assert mine.metadata() == theirs.metadata()
    mine, theirs = load_file(out), load_file(converted(kind))
    assert list(mine) == list(theirs)
    for name, want in theirs.items():
        same = (mine[name].view(torch.uint8) == want.view(torch.uint8)).double().mean()
        fitted = kind == "int4" and (want.dtype == torch.uint8 or name.endswith(("scale_weight", "zero_weight")))
        assert same > 0.99 if fitted else same == 1, name


def test_conversion_to_fp8_needs_torch(monkeypatch, tmp_path):
    real = libraries.util.find_spec
    monkeypatch.setattr(libraries.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(ValueError, match="fp8_e4m3fn: MLX has no such layers"):
        convert(pipeline.TINY, tmp_path / "x.safetensors", kind="fp8_e4m3fn")
    monkeypatch.setattr(libraries.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="neither torch nor mlx is installed"):
        convert(pipeline.TINY, tmp_path / "x.safetensors")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("kind", ["auto", "fp32", "bf16", *INTEGER])
def test_the_estimate_is_what_the_weights_take(kind):
    """To the byte; torch's own test is in devices/test_needs.py."""
    helios = load(backend="mlx", weight_dtype=kind)
    held = sum(x.nbytes for _, x in tree_flatten(helios.parts.transformer.parameters()))
    assert helios.parts.estimate().parts["transformer"] == held


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_the_estimate_of_a_quantised_file_is_what_its_weights_take(converted, kind, backend):
    helios = load(converted(kind), backend=backend)
    model = helios.parts.transformer
    tensors = tree_flatten(model.parameters()) if backend == "mlx" else model.state_dict().items()
    assert helios.parts.estimate().parts["transformer"] == sum(x.nbytes for _, x in tensors)


def test_unified_memory_makes_the_estimate_of_a_14b_model_small(converted):
    """Of the published shape: 4 bits with a factor and a zero per 64 columns."""
    stored = files.Stored("x", "k", "BF16", (13824, 5120), 0)
    held = {kind: precision.held_bytes(stored, kind, 2, "mlx") for kind in KINDS}
    assert held["int4"] == 13824 * 5120 * (4 + 32 / 64) / 8 and held["int8"] == 13824 * 5120 * (8 + 32 / 128) / 8
    assert held["fp8_e4m3fn"] is None and needs.size(held["int4"]) == "38 MiB"
