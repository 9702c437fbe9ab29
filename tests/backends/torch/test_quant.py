"""Quantised weights: rounding, what is stored, a forward's error, loading. Named: M8, M27."""

import copy
import json
import shutil

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import kernels, quant
from helios_video.helios_core.backends.torch.layers import Linear
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.quant import QuantLinear, dequantise, quantise_model
from helios_video.helios_core.backends.torch.quantising import quantise
from helios_video.helios_core.checkpoint import precision, sources
from helios_video.helios_core.checkpoint.precision import find_kind
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig
from safetensors import safe_open
from safetensors.torch import save_file
from support.quant import build, gaussian

KINDS = {"fp8_e4m3fn": 0.027, "int8": 0.007, "int4": 0.086}  # relative error of a Gaussian weight
NAME = "blocks.0.ffn.net.2.weight"


def parts(weight, kind, dtype=torch.float32):
    found = [*quantise(NAME, weight, kind).values(), None]
    return dequantise(*found[:3], dtype)


def error(found, wanted):
    return ((found.float() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_of_a_gaussian_weight_is_what_rounding_theory_gives(kind, dtype):
    weight = 0.02 * gaussian(256, 512)
    found = parts(weight, kind, dtype)
    assert found.dtype == dtype and found.shape == weight.shape
    assert KINDS[kind] * 0.9 < error(found, weight) < KINDS[kind]


def test_int4_beats_plain_rounding():
    """Symmetric and asymmetric rounding to the ends of the range have .108 and .090 in groups of 64."""
    weight = gaussian(128, 1024)
    groups = weight.unflatten(1, (-1, 64))
    low, high = groups.aminmax(dim=2, keepdim=True)
    step = (high - low) / 15
    plain = (((groups - low) / step).round() * step + low).flatten(1)
    assert error(parts(weight, "int4"), weight) < 0.96 * error(plain, weight) < 0.096 * 0.96


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_quantised_on_its_own(kind):
    """So that joined layers equal joining quantised ones, and a large row does not spoil a small one."""
    weight = torch.cat([gaussian(8, 128), 1000 * gaussian(8, 128, seed=1)])
    both, alone = parts(weight, kind), parts(weight[:8], kind)
    assert torch.equal(both[:8], alone) and error(alone, weight[:8]) < 1.2 * KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weight_gives_the_same_bytes_and_is_left_alone(kind):
    weight = gaussian(32, 128)
    before = weight.clone()
    one, two = quantise(NAME, weight, kind), quantise(NAME, weight.clone(), kind)
    assert torch.equal(weight, before) and list(one) == list(two)
    assert all(torch.equal(one[name].view(torch.uint8), two[name].view(torch.uint8)) for name in one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.37, -2.5])
def test_a_constant_weight_stays_what_it_is(kind, value):
    weight = torch.full((4, 64), value)
    assert torch.allclose(parts(weight, kind), weight, rtol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_widths_take_smaller_groups(kind):
    weight = gaussian(16, 160)
    assert precision.group_size("int8", 160) == 32 and precision.group_size("int4", 5120) == 64
    assert error(parts(weight, kind), weight) < KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored(kind):
    found = quantise(NAME, gaussian(48, 256), kind)
    layer = NAME.removesuffix("weight")
    wanted = {
        "fp8_e4m3fn": {"weight": (torch.float8_e4m3fn, (48, 256)), "scale_weight": (torch.float32, (48, 1))},
        "int8": {"weight": (torch.int8, (48, 256)), "scale_weight": (torch.bfloat16, (48, 2))},
        "int4": {
            "weight": (torch.uint8, (48, 128)),
            "scale_weight": (torch.bfloat16, (48, 4)),
            "zero_weight": (torch.bfloat16, (48, 4)),
        },
    }[kind]
    assert {name: (t.dtype, tuple(t.shape)) for name, t in found.items()} == {layer + k: v for k, v in wanted.items()}
    assert sum(t.nbytes for t in found.values()) == precision.quantised_bytes((48, 256), kind)


def test_int4_keeps_column_j_low_and_column_j_plus_half_high():
    codes, scale, zero = torch.tensor([[0x21, 0x43]], dtype=torch.uint8), torch.ones(1, 1), torch.zeros(1, 1)
    assert dequantise(codes, scale, zero, torch.float32).tolist() == [[1, 3, 2, 4]]


def test_other_makers_scaled_fp8_has_one_factor():
    codes = gaussian(4, 8).to(torch.float8_e4m3fn)
    for scale in (torch.tensor(0.5), torch.tensor([0.5]), torch.full((4,), 0.5)):
        assert torch.equal(dequantise(codes, scale, None, torch.float32), codes.float() * 0.5)


def test_m27_what_cannot_be_quantised_is_refused():
    weight = gaussian(4, 64)
    with pytest.raises(ValueError, match="wanted one of fp8_e4m3fn, int8, int4"):
        quantise(NAME, weight, "int3")
    for bad in (float("nan"), float("inf")):
        broken = weight.clone()
        broken[1, 2] = bad
        with pytest.raises(ValueError, match=f"{NAME} holds NaN or infinity"):
            quantise(NAME, broken, "int8")
    with pytest.raises(ValueError, match="quantised already"):
        quantise(NAME, quantise(NAME, weight, "int8")[NAME], "int4")
    with pytest.raises(ValueError, match="odd"):
        quantise(NAME, gaussian(4, 7), "int4")


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_widened_weights_product(kind):
    torch.manual_seed(0)
    plain = Linear(128, 96).requires_grad_(False)
    x = torch.randn(2, 5, 128)
    made = quantise(NAME, plain.weight, kind).values()
    layer = QuantLinear(*[*made, None][:3], plain.bias.detach())
    with torch.inference_mode():
        assert torch.equal(layer(x), kernels.linear(x, layer.weight, plain.bias))
        assert torch.equal(layer(x, gelu=True), kernels.linear(x, layer.weight, plain.bias, True))
    again = QuantLinear(*[torch.empty_like(t) for t in made], *[None] * (3 - len(made)), plain.bias.detach().clone())
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_layers_are_the_layers(kind):
    model, run = build()
    loose = quantise_model(copy.deepcopy(model), kind)
    apart = run(loose)
    joined = run(loose.fuse())
    assert not hasattr(loose.blocks[0].attn1, "to_q")
    assert error(joined, apart) < 1e-6
    assert torch.equal(joined, run(quantise_model(model.fuse(), kind)))


@pytest.mark.parametrize(("kind", "limit"), [("int8", 1.5e-2), ("fp8_e4m3fn", 4e-2), ("int4", 1.5e-1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_of_a_forward(kind, limit, dtype):
    """The limits of the 65 M shape, which tests/benchmarks/quant.py measures, hold on a small one."""
    model, run = build(dtype=dtype)
    wanted = run(model)
    assert limit / 5 < error(run(quantise_model(model, kind)), wanted) < limit


@pytest.mark.parametrize("kind", KINDS)
def test_m8_only_attention_and_feed_forward_are_quantised(kind):
    """Float32 islands, embeddings, biases and the text and output projections keep their types."""
    model = load(weight_dtype=kind).parts.transformer
    plain = load(weight_dtype="auto").parts.transformer.state_dict()
    layers = [name for name, module in model.named_modules() if isinstance(module, QuantLinear)]
    assert len(layers) == 8 * len(model.blocks)
    codes = {f"{layer}.{part}" for layer in layers for part in ("codes", "scale", "zero")}
    kept = {name: t for name, t in model.state_dict().items() if name not in codes}
    assert all(t.dtype == plain[name].dtype and torch.equal(t, plain[name]) for name, t in kept.items())
    assert set(plain) - set(kept) == {f"{layer}.weight" for layer in layers}
    assert all(precision.is_quantised(f"{layer}.weight") for layer in layers)


def write(folder, state, config, metadata):
    (folder / "transformer").mkdir()
    save_file(state, folder / "transformer" / "model.safetensors", metadata=metadata)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return sources.open_part(folder, "transformer")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_quantised_weights_equals_quantising_on_load(kind, tmp_path):
    original = load().checkpoint.sources["transformer"]
    state = {}
    with safe_open(original.files[0], framework="pt") as file:
        for name, stored in original.tensors.items():
            tensor = file.get_tensor(stored.key)
            state |= quantise(name, tensor, kind) if precision.is_quantised(name) else {name: tensor}
    source = write(tmp_path, state, original.config, {precision.METADATA: kind})
    config = ModelConfig(TransformerConfig.from_dict(original.config))
    for dtype in ("auto", kind):
        read = load_transformer(source, config, dtype=dtype, device="cpu").state_dict()
        made = load_transformer(original, config, dtype=kind, device="cpu").state_dict()
        assert list(read) == list(made) and all(read[n].dtype == made[n].dtype for n in made)
        assert all(torch.equal(read[n].view(torch.uint8), made[n].view(torch.uint8)) for n in made)
    wide = load_transformer(source, config, dtype="bf16", device="cpu")
    assert type(wide.blocks[0].ffn.net[2]) is Linear and wide.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("form,sizes", [("int8", (32, 64, 128)), ("int4", (32, 64, 128))])
def test_group_sizes_are_part_of_the_name(form, sizes):
    """A size of its own is the plain name's; smaller groups are more exact and take more factors."""
    names = [form if precision.GROUPS[form] == n else f"{form}_g{n}" for n in sizes]
    weight = gaussian(64, 512)
    errors = [error(parts(weight, name), weight) for name in names]
    assert errors[0] * 1.04 < errors[1] < errors[2] / 1.04
    for name, n in zip(names, sizes):
        assert precision.group_size(name, 512) == n and precision.group_size(name, 96) == 32
        stored = quantise(NAME, weight, name)
        assert stored[NAME.replace("weight", "scale_weight")].shape == (64, 512 // n)
        assert sum(t.nbytes for t in stored.values()) == precision.quantised_bytes((64, 512), name)


def test_the_error_of_a_forward_in_small_groups():
    model, run = build()
    wanted = run(model)
    plain, small = (error(run(quantise_model(copy.deepcopy(model), kind)), wanted) for kind in ("int4", "int4_g32"))
    assert small < 0.95 * plain


def test_m27_weights_are_not_quantised_twice():
    stored = sources.Stored("x", "k", "I8", (4, 64), 0, scale=sources.Stored("x", "s", "BF16", (4, 1), 0))
    source = sources.Source("folder", "transformer", {NAME: stored}, {})
    assert find_kind(source, "auto") == find_kind(source, "int8") == "int8" and find_kind(source, "bf16") is None
    with pytest.raises(ValueError, match="folder holds int8 weights; quantising"):
        find_kind(source, "int4")
    assert find_kind(source, "int8_g64") == "int8_g64"
    with pytest.raises(ValueError, match="folder holds int8 weights in other groups; .*weight_dtype auto or int8"):
        find_kind(source, "int8_g32")


def test_fp8_is_refused_on_apples_gpu():
    helios = load()
    with pytest.raises(ValueError, match="no fp8; choose weight_dtype int8"):
        load_transformer(helios.checkpoint.sources["transformer"], helios.config, dtype="fp8_e4m3fn", device="mps")


def test_a_nan_in_a_checkpoint_is_named(tmp_path):
    original = load()
    shutil.copytree(original.checkpoint.path, tmp_path / "broken")
    file = next((tmp_path / "broken" / "transformer").glob("*.safetensors"))
    with safe_open(file, framework="pt") as opened:
        state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    state[NAME][3, 4] = float("nan")
    save_file(state, file)
    with pytest.raises(ValueError, match=f"{NAME} holds NaN or infinity"):
        load(tmp_path / "broken", weight_dtype="int8").parts.transformer  # noqa: B018


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("dtype,limit", [(torch.float32, 2e-6), (torch.bfloat16, 0.01)])
def test_what_is_rotated_in_the_weight_may_be_undone_in_the_input(rows, dtype, limit):
    codes, scale = quantise(NAME, gaussian(96, 512), "int8_g64").values()
    layer = QuantLinear(codes, scale.float(), None, gaussian(96).to(dtype), rotation=256)
    x = gaussian(2, rows, 512, seed=1).to(dtype)
    wanted = x.double() @ dequantise(codes, scale.float(), None, torch.float32, 256).double().T + layer.bias.double()
    with torch.inference_mode():
        assert ((layer(x).double() - wanted).norm() / wanted.norm()) < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_code_of_fp8_is_widened_on_the_cpu_as_torch_does_it(dtype, monkeypatch):
    """By its bits, a few rows at a time; NaN stays NaN."""
    monkeypatch.setattr(quant, "AT_ONCE", 1000)
    codes = torch.arange(256, dtype=torch.uint8).repeat(7, 1)
    codes[:3] &= 0xBF  # rows without NaN
    codes = codes.view(torch.float8_e4m3fn)
    for scale in (torch.rand(7, 1), torch.tensor(0.3), torch.rand(1), torch.rand(7), torch.rand(7, 4).bfloat16()):
        found = quant.dequantise(codes, scale, None, dtype)
        columns = scale.shape[1] if scale.ndim == 2 else 1
        wanted = codes.to(dtype).unflatten(1, (columns, -1))
        wanted = wanted.mul_(scale.reshape(-1, columns, 1)).flatten(1)
        assert found.dtype == dtype and torch.equal(found.isnan(), wanted.isnan()) and found.isnan().any()
        assert torch.equal(found.nan_to_num(), wanted.nan_to_num())
