"""Down and up the pyramid and the block noise of the jump, on numpy, torch and, where it is installed, MLX."""

import importlib

import numpy as np
import pytest
from helios_video.helios_core import pyramid
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.steps import schedule

THIRD = 1 / 3


def white(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[("numpy", "asarray"), ("torch", "as_tensor"), ("mlx.core", "array")], ids=lambda p: p[0])
def array(request):
    """numpy -> an array of the framework."""
    module, function = request.param
    return getattr(pytest.importorskip(module), function)


def test_frameworks_agree(array):
    x = white((2, 3, 2, 8, 12))
    for function in (
        pyramid.downsample,
        lambda y: pyramid.downsample(y, (2,), "content"),
        pyramid.upsample,
        lambda y: pyramid.block_noise(y, THIRD),
        lambda y: pyramid.block_noise(y, 0.2),
    ):
        want, got = function(x), function(array(x))
        assert type(got) is type(array(x)) and got.dtype == array(x).dtype
        assert tuple(got.shape) == want.shape
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=1e-6)


def test_noise_keeps_unit_variance():
    """Within five standard errors, 1 / sqrt(2 n); neighbours stay uncorrelated."""
    x = white((1, 16, 9, 96, 96))
    for factors in ((2,), (2, 2), (3,), (4, 2)):
        y = pyramid.downsample(x, factors, "noise")
        assert abs(float(y.std()) - 1) < 5 / np.sqrt(2 * y.size)
        assert abs(float(y.mean())) < 5 / np.sqrt(y.size)
        right = (y[..., 1:] * y[..., :-1]).mean()
        assert abs(float(right)) < 5 / np.sqrt(y.size)


def test_content_is_the_mean():
    x = white((1, 2, 2, 8, 8)) + 3
    y = pyramid.downsample(x, (2, 2), "content")
    np.testing.assert_allclose(y[0, 1, 1, 1, 0], x[0, 1, 1, 4:8, 0:4].mean(), rtol=1e-5)
    np.testing.assert_allclose(y.mean(), x.mean(), rtol=1e-6)
    constant = np.full((1, 1, 1, 8, 8), 0.7, np.float32)
    np.testing.assert_allclose(pyramid.downsample(constant, (2, 2), "content"), 0.7, rtol=1e-6)


def test_noise_is_the_reference_bilinear():
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(white((2, 16, 9, 24, 40)))
    want = x.movedim(2, 1).flatten(0, 1)
    for _ in range(2):
        want = F.interpolate(want, scale_factor=0.5, mode="bilinear") * 2
    want = want.unflatten(0, (2, 9)).movedim(1, 2)
    got = pyramid.downsample(x, (2, 2), "noise")
    assert (got - want).abs().max() < 2e-6


def test_upsample_is_the_reference_nearest():
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(white((1, 4, 3, 6, 10)))
    want = F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
    assert torch.equal(pyramid.upsample(x), want)
    assert torch.equal(pyramid.downsample(pyramid.upsample(x, 2), (2,), "content"), x)


@pytest.mark.parametrize(
    "size,factors,words",
    [
        ((45, 80), (2,), "height 44 or 46, width 80"),
        ((48, 78), (2, 2), "height 48, width 76 or 80"),
        ((2, 9), (2, 2), "height 4, width 8 or 12"),
    ],
)
def test_odd_sizes_are_refused_with_the_nearest(size, factors, words):
    x = np.zeros((1, 1, 1, *size), np.float32)
    with pytest.raises(ValueError, match=words):
        pyramid.downsample(x, factors)


def test_bad_policies_and_factors_are_refused():
    x = np.zeros((1, 1, 1, 4, 4), np.float32)
    with pytest.raises(ValueError, match="noise, content"):
        pyramid.downsample(x, policy="loud")
    assert pyramid.parse_factors("2, 2") == pyramid.parse_factors("2 2") == (2, 2)
    for text in ("", "2,x", "0", "2.5", "-2"):
        with pytest.raises(ValueError, match="whole numbers"):
            pyramid.parse_factors(text)


def test_the_input_is_not_modified():
    x = white((1, 2, 2, 8, 8))
    before = x.copy()
    for policy in pyramid.POLICIES:
        pyramid.downsample(x, (2,), policy)
    pyramid.upsample(x)
    pyramid.block_noise(x, THIRD)
    assert np.array_equal(x, before)


def blocks(noise):
    b, c, t, h, w = noise.shape
    return noise.reshape(b, c, t, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 3, 5, 4, 6).reshape(-1, 4)


def covariance(gamma):
    return (1 + gamma) * np.eye(4) - gamma * np.ones((4, 4))


@pytest.mark.parametrize("gamma", [THIRD, 0.2, 0.05])
def test_block_noise_covariance(gamma):
    values = blocks(pyramid.block_noise(white((4, 16, 9, 32, 32)), gamma))
    got = values.T @ values / len(values)
    assert np.abs(got - covariance(gamma)).max() < 5 * 1.5 / np.sqrt(len(values))


def test_block_noise_blocks_sum_to_zero():
    values = blocks(pyramid.block_noise(white((1, 16, 9, 16, 16)), THIRD))
    assert np.abs(values.sum(axis=1)).max() < 2e-6
    assert abs(values.std() - 1) < 0.01


def test_block_noise_is_the_cholesky_form_in_diffusers_layout():
    """z [blocks, 4] of blocks in (b c t h/2 w/2) order, z @ L^T, then interleaved."""
    b, c, t, h, w = shape = (2, 3, 2, 4, 6)
    z = white((b * c * t * h // 2 * w // 2, 4))
    rows = np.linalg.cholesky(covariance(THIRD) + 1e-8 * np.eye(4))

    def layout(values):
        values = values.reshape(b, c, t, h // 2, w // 2, 2, 2)
        return values.transpose(0, 1, 2, 3, 5, 4, 6).reshape(shape)

    got = pyramid.block_noise(layout(z), THIRD)
    np.testing.assert_allclose(got, layout(z @ rows.T), atol=2e-4 * 4)
    rows[3, 3] = 0
    np.testing.assert_allclose(got, layout((z @ rows.T).astype(np.float32)), atol=1e-6)


def test_block_noise_is_that_of_diffusers_where_its_factorisation_works():
    """At gamma 0.2 the matrix is regular; at 1/3 float32 Cholesky fails on a CPU."""
    from types import SimpleNamespace

    import torch
    from diffusers import HeliosPyramidPipeline

    oracle = SimpleNamespace(scheduler=SimpleNamespace(config=SimpleNamespace(gamma=0.2)))
    size = (1, 4, 3, 8, 12)
    want = HeliosPyramidPipeline.sample_block_noise(
        oracle, *size, device=torch.device("cpu"), generator=torch.Generator().manual_seed(3)
    )
    z = torch.randn(int(np.prod(size)) // 4, 4, generator=torch.Generator().manual_seed(3))
    z = z.view(1, 4, 3, 4, 6, 2, 2).permute(0, 1, 2, 3, 5, 4, 6).reshape(size)
    assert (pyramid.block_noise(z, 0.2) - want).abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [0.3, 0.2, 0.01])
def test_cholesky_rows_are_numpys(gamma):
    np.testing.assert_allclose(pyramid.cholesky_rows(gamma), np.linalg.cholesky(covariance(gamma)), atol=1e-12)


def test_cholesky_rows_of_the_singular_matrix():
    want = [[1, 0, 0, 0], [-THIRD, 0.9428090, 0, 0], [-THIRD, -0.4714045, 0.8164966, 0]]
    np.testing.assert_allclose(pyramid.cholesky_rows(THIRD), [*want, [-THIRD, -0.4714045, -0.8164966, 0]], atol=1e-7)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_jump_makes_white_noise_of_the_stage_start(stage):
    """alpha * nearest2x(end noise) + beta * block noise: no correlation left, standard deviation start[i]."""
    rows = schedule.stages(ScheduleConfig())
    row, end = rows[stage], rows[stage - 1].end
    coarse = end * white((2, 16, 9, 32, 32), 1)
    x = row.alpha * pyramid.upsample(coarse) + row.beta * pyramid.block_noise(white((2, 16, 9, 64, 64), 2), THIRD)
    values = blocks(x)
    tolerance = 5 * 1.5 / np.sqrt(len(values))
    assert np.abs(values.T @ values / len(values) - row.start**2 * np.eye(4)).max() < tolerance
    assert row.alpha * (1 - end) == pytest.approx(1 - row.start, abs=2e-3)


def test_describe_names_size_mean_and_std(array):
    levels = (array(np.full((1, 1, 1, 4, 6), 2.0, np.float32)), array(white((1, 16, 9, 8, 8))))
    first, second = pyramid.describe(pyramid.Levels(levels, levels, "drawn")).splitlines()
    assert first.startswith("4x6: mean +2.0000, std 0.0000, min +2.0000, max +2.0000, channel std 0.0000 to 0.0000")
    assert second.startswith("8x8: mean ") and second.endswith("gain 1.0000")
    assert abs(float(second.split("std ")[1].split(",")[0]) - 1) < 0.03


def test_pyramid_imports_no_framework():
    source = importlib.util.find_spec(pyramid.__name__).loader.get_source(pyramid.__name__)
    assert "import torch" not in source and "import mlx" not in source and "import numpy" not in source
