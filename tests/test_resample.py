"""Resampling matrices against torch's interpolate and pooling, and Pillow's Lanczos; numpy, torch and MLX alike."""

import importlib
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helios_video.helios_core import resample

SIZES = [(7, 16), (45, 80), (64, 64), (79, 97), (255, 256), (1, 9), (300, 5)]
FACTORS = [2, 3, 6, Fraction(3, 2), Fraction(7, 3), Fraction(11, 10)]
TORCH = {
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear_aligned": {"mode": "bilinear", "align_corners": True},
    "nearest": {"mode": "nearest"},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "area": {"mode": "area"},
}


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def error(got, want):
    """Largest difference, in parts of the largest value."""
    return float((got - want).abs().max() / want.abs().max())


def reduced(size, factor):
    return tuple(resample.reduced(n, factor) for n in size)


def cases(kernel):
    """Sizes and factors that leave something; for area, those where torch's means are of whole cells or overlap."""
    for size in SIZES:
        for factor in FACTORS:
            whole = isinstance(factor, int) and any(n % factor for n in size)
            if 0 not in reduced(size, factor) and not (kernel == "area" and whole):
                yield size, factor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", TORCH)
def test_kernels_are_torchs_interpolate(kernel, dtype):
    count = 0
    for size, factor in cases(kernel):
        x = draw(2, 3, *size, dtype=dtype)
        want = F.interpolate(x, size=reduced(size, factor), **TORCH[kernel])
        got = resample.shrink(x[:, :, None], factor, kernel)[:, :, 0]
        assert got.dtype == dtype and got.shape == want.shape
        assert error(got, want) < (1e-6 if dtype == torch.float32 else 1e-12), (size, factor)
        count += 1
    assert count > 15


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
def test_an_exact_factor_is_torchs_scale_factor(kernel):
    """There the two ways of torch agree: by size and by scale_factor."""
    x = draw(1, 2, 48, 36)
    for factor in (2, 3):
        want = F.interpolate(x, scale_factor=1 / factor, **TORCH[kernel])
        assert (resample.shrink(x[:, :, None], factor, kernel)[:, :, 0] - want).abs().max() < 1e-6


def test_area_is_average_pooling_and_drops_what_is_left_over():
    for size in SIZES:
        for factor in (2, 3, 5):
            if min(size) < factor:
                continue
            x = draw(1, 2, *size)
            got = resample.shrink(x[:, :, None], factor)[:, :, 0]
            assert (got - F.avg_pool2d(x, factor)).abs().max() < 1e-6
            rows, columns = (torch.tensor(resample.matrix("area", n, factor)).float() for n in size)
            assert (got - rows @ x @ columns.T).abs().max() < 1e-6


@pytest.mark.parametrize("size,factor", [(64, 2), (97, 3), (45, Fraction(3, 2)), (20, 7), (9, 9)])
def test_lanczos_is_pillows(size, factor):
    from PIL import Image

    x = draw(size, 8).numpy()
    out = resample.reduced(size, factor)
    want = np.asarray(Image.fromarray(x).resize((8, out), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(resample.matrix("lanczos", size, factor) @ x, want, atol=1e-5)


@pytest.mark.parametrize("kernel", resample.KERNELS)
def test_rows_sum_to_one_so_a_constant_stays(kernel):
    for size, factor in [(7, 2), (16, 3), (97, 6), (45, Fraction(3, 2)), (5, 5), (12, 1)]:
        made = resample.matrix(kernel, size, factor)
        assert made.shape == (resample.reduced(size, factor), size)
        np.testing.assert_allclose(made.sum(axis=1), 1, atol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        made[0, 0] = 2
    assert resample.matrix(kernel, 12, 1) is made


@pytest.mark.parametrize("module,function", [("numpy", "asarray"), ("torch", "as_tensor"), ("mlx.core", "array")])
@pytest.mark.parametrize("kernel", resample.KERNELS)
def test_frameworks_agree(kernel, module, function):
    array = getattr(pytest.importorskip(module), function)
    x = draw(2, 3, 2, 9, 14).numpy()
    for factor in (1, 2, 3, Fraction(3, 2)):
        want, got = resample.shrink(x, factor, kernel), resample.shrink(array(x), factor, kernel)
        assert type(got) is type(array(x)) and got.dtype == array(x).dtype
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=1e-6)


def test_nothing_heavy_is_imported():
    source = importlib.util.find_spec(resample.__name__).loader.get_source(resample.__name__)
    assert "import torch" not in source and "import mlx" not in source
