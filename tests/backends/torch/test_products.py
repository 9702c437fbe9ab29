"""Products in eight bits on the CPU: what they compute, their error beside the widened product, when they are taken."""

import copy
import logging

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import products, quant
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.quant import QuantLinear, dequantise, quantise, quantise_model
from helios_video.helios_core.checkpoint import hadamard
from support.quant import build, gaussian

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NAME = "blocks.0.ffn.net.2.weight"


def error(found, wanted):
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


def layer(kind="fp8_e4m3fn", o=96, i=128, dtype=torch.float32, rotation=0) -> QuantLinear:
    """A layer whose weight has one factor a row."""
    weight, bias = gaussian(o, i, seed=1), gaussian(o, seed=2).to(dtype)
    if kind == "fp8_e4m3fn":
        codes, scale = quantise(NAME, weight, kind).values()
    else:
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        codes = (weight / scale).round().to(torch.int8)
    return QuantLinear(codes, scale, None, bias, rotation)


def fits(made: QuantLinear) -> bool:
    return products.fits(made.codes, made.scale, made.zero, made.columns, made.rotation)


def gpu(monkeypatch, *capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


@pytest.mark.parametrize("function", [products.row_wise, products.unit_wise])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_in_fp8_is_that_of_the_codes(function, dtype):
    """To the rounding of the result: the error is all in the codes."""
    made, x = layer(dtype=dtype), (3 * gaussian(40, 128)).to(dtype)
    codes, own = products.rounded(x, products.FP8)
    wanted = (codes.double() * own.double()) @ dequantise(made.codes, made.scale, None, torch.float64).T + made.bias
    assert error(function(x, made.codes, made.scale, made.bias), wanted) < {torch.float32: 1e-6}.get(dtype, 5e-3)


@pytest.mark.parametrize("rotation", [0, 64])
def test_a_product_in_int8_is_that_of_the_codes(rotation):
    made, x = layer("int8", rotation=rotation), 3 * gaussian(2, 20, 128)
    wanted = made(x)
    assert products.use(torch.nn.ModuleList([made]), CPU) == 1
    assert error(made(x), wanted) < 0.009
    turned = x.flatten(0, 1) @ torch.block_diag(*[torch.from_numpy(hadamard(64))] * 2) if rotation else x.flatten(0, 1)
    codes, own = products.rounded(turned, torch.int8)
    exact = (codes.double() * own) @ (made.codes.double() * made.scale).T + made.bias
    assert error(made(x).flatten(0, 1), exact) < 1e-6


@pytest.mark.parametrize("kind", ["fp8_e4m3fn", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_activations_costs(kind, dtype):
    """Gaussian activations: .026 in fp8, .0075 in int8, as their weights have; both together add as noise does."""
    made, x = layer(kind, 256, 512, dtype), gaussian(64, 512).to(dtype)
    widened = made(x)
    products.use(torch.nn.ModuleList([made]), CPU)
    limits = {"fp8_e4m3fn": (0.02, 0.028), "int8": (0.004, 0.0095)}[kind]
    assert limits[0] < error(made(x), widened) < limits[1]
    assert made(x).dtype == dtype
    assert error(made(x, gelu=True), torch.nn.functional.gelu(made(x), approximate="tanh")) == 0


def test_rows_are_rounded_on_their_own_and_zeros_stay():
    x = torch.cat([1e4 * gaussian(2, 64), 1e-4 * gaussian(2, 64), torch.zeros(1, 64)])
    for form in (products.FP8, torch.int8):
        codes, own = products.rounded(x, form)
        back = codes.float() * own
        assert all(error(a, b) < 0.03 for a, b in zip(back[:4], x[:4]))
        assert not back[4].any() and codes.float().abs().max() <= products.MOST[form]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", products.MOST)
def test_the_largest_number_of_a_row_never_overflows(dtype, form):
    """The factor is rounded, so that the quotient may be a little over the most."""
    largest = torch.linspace(1, 2, 2000).to(dtype)[:, None]
    codes, _ = products.rounded(torch.cat([largest, -largest], dim=1), form)
    most = products.MOST[form]
    assert ((codes.float() * torch.tensor([1, -1])).sub(most - 0.5).abs() <= 0.5).all()


def test_nan_is_not_lost():
    made, x = layer(), gaussian(3, 128)
    x[1, 5] = float("nan")
    products.use(torch.nn.ModuleList([made]), CPU)
    assert made(x).isnan().any(dim=1).tolist() == [False, True, False]


def test_the_error_of_a_forward():
    """Beside the widened product, where the forward's own error is .024 of the weights."""
    model, run = build()
    made = quantise_model(copy.deepcopy(model).fuse(), "fp8_e4m3fn")
    plain, widened = run(model), run(made)
    assert products.use(made, CPU) == 8 * len(made.blocks)
    scaled = run(made)
    assert 0.005 < error(scaled, widened) < 0.035
    assert error(scaled, plain) < 0.05


def test_layers_that_do_not_fit_are_widened():
    assert fits(layer()) and fits(layer("int8", rotation=64))
    assert not fits(layer(o=90)) and not fits(layer(i=120))
    grouped = quantise(NAME, gaussian(64, 256), "int8").values()
    assert not fits(QuantLinear(*grouped, None, torch.zeros(64)))
    int4 = quantise(NAME, gaussian(64, 256), "int4").values()
    assert not fits(QuantLinear(*int4, torch.zeros(64)))


def test_few_rows_in_int8_are_widened():
    """CUDA's kernel takes more than sixteen."""
    made = layer("int8")
    wanted = made(gaussian(5, 128))
    products.use(torch.nn.ModuleList([made]), CPU)
    assert torch.allclose(made(gaussian(5, 128)), wanted)


def test_a_kernel_that_fails_gives_way_and_says_so(monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    made, x = layer(), gaussian(40, 128)
    wanted = made(x)
    monkeypatch.setattr(products, "row_wise", broken)
    products.use(torch.nn.ModuleList([made]), CPU)
    with caplog.at_level(logging.WARNING):
        assert error(made(x), wanted) < 0.03
    assert "row by row fails here (CUBLAS_STATUS_NOT_SUPPORTED); factors after the product from now on" in caplog.text
    monkeypatch.setattr(torch, "_scaled_mm", broken)
    assert torch.allclose(made(x), wanted, rtol=1e-5, atol=1e-5)


def test_what_auto_is(monkeypatch):
    assert not products.chosen("auto", CPU, "fp8_e4m3fn")
    for capability, scaled in (((8, 9), True), ((9, 0), True), ((12, 0), True), ((8, 6), False)):
        gpu(monkeypatch, *capability)
        assert products.chosen("auto", CUDA, "fp8_e4m3fn") == scaled
        assert not products.chosen("auto", CUDA, "int8") and not products.chosen("auto", CUDA, None)
        assert not products.chosen("widened", CUDA, "fp8_e4m3fn")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    gpu(monkeypatch, 9, 4)
    assert not products.chosen("auto", CUDA, "fp8_e4m3fn")


@pytest.mark.parametrize(
    ("version", "capability", "there"),
    [("2.6.0", (9, 0), False), ("2.7.1", (9, 0), True), ("2.11.0", (8, 9), False), ("2.12.0", (8, 9), True)],
)
def test_faulty_kernels_of_old_torch_are_passed_over(monkeypatch, version, capability, there):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    gpu(monkeypatch, *capability)
    assert products.has_row_wise(CUDA) == there
    assert len(products.ways(CUDA)) == 1 + there


def test_what_cannot_be_is_refused_before_anything_loads(monkeypatch):
    with pytest.raises(ValueError, match="scaled: .*choose weight dtype fp8_e4m3fn; or leave products at auto"):
        load(products="scaled")
    with pytest.raises(ValueError, match="products 'fast': wanted one of auto, widened, scaled"):
        load(products="fast")
    gpu(monkeypatch, 8, 6)
    with pytest.raises(ValueError, match="compute capability 8.9, this GPU has 8.6"):
        products.chosen("scaled", CUDA, "fp8_e4m3fn")


def test_scaled_products_that_no_layer_takes_are_said(caplog):
    """This pack's own int8 has several factors a row."""
    assert load(weight_dtype="int8", products="scaled").parts.transformer is not None
    assert "one factor a row, which no layer here has: all are widened" in caplog.text


def test_a_pipeline_loads_scaled_products():
    helios = load(weight_dtype="fp8_e4m3fn", products="scaled")
    layers = [m for m in helios.parts.transformer.modules() if isinstance(m, QuantLinear)]
    assert layers and all((m.product is not None) == fits(m) for m in layers)
    assert any(m.product is not None for m in layers)
    source = helios.checkpoint.sources["transformer"]
    plain = load_transformer(source, helios.config, dtype="fp8_e4m3fn", device="cpu")
    assert all(m.product is None for m in plain.modules() if isinstance(m, QuantLinear))
    assert helios.parts.identity != load(weight_dtype="fp8_e4m3fn").parts.identity


def test_a_lora_beside_a_scaled_layer_is_added():
    from helios_video.helios_core.backends.torch.lora import LoraLinear

    made, x = layer(), gaussian(4, 128)
    products.use(torch.nn.ModuleList([made]), CPU)
    down, up = gaussian(4, 128), gaussian(96, 4)
    assert torch.allclose(LoraLinear(made, [(0, down, up)])(x), made(x) + x @ down.T @ up.T, atol=1e-3)


def test_one_factor_a_layer_becomes_one_a_row():
    """As ComfyUI's fp8 files have it: load gives every row the same."""
    codes = gaussian(96, 128).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.5).reshape(-1, 1).expand(96, 1).contiguous()
    made, x = QuantLinear(codes, scale, None, torch.zeros(96)), gaussian(20, 128)
    wanted = made(x)
    assert products.use(torch.nn.ModuleList([made]), CPU) == 1 and error(made(x), wanted) < 0.03


def test_the_module_of_layers_knows_nothing_of_kernels():
    assert quant.QuantLinear.product is None


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_a_compiler_takes_scaled_layers_whole():
    torch._dynamo.reset()
    for made in (layer(), layer("int8", rotation=64)):
        x = gaussian(40, 128)
        products.use(torch.nn.ModuleList([made]), CPU)
        wanted = made(x)
        assert error(torch.compile(made, backend="eager", fullgraph=True)(x), wanted) < 1e-6
