"""Variance policies through the node: the figures of issue #116, exact gains, and what is refused."""

from __future__ import annotations

import importlib
from fractions import Fraction

import helios_video as pack
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helios_video.helios_core import pyramid
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.pyramid import variance
from helios_video.helios_core.pyramid.levels import KERNELS, build
from helios_video.helios_core.pyramid.variance import GROUPS
from helios_video.helios_core.steps.denoise import Plan, denoise

LINE = (
    r"85x85: mean [+-]0\.\d{4}, std \d\.\d{4}, min -\d+\.\d{4}, max \+\d+\.\d{4}, channel std (.*) to (.*), gain (.*)"
)


def white(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def noise():
    """N(0, 1) as in issue #116, [1 16 1 256 256]."""
    return white(1, 16, 1, 256, 256)


@pytest.fixture(scope="module")
def much_noise():
    """Enough for a standard deviation to a tenth of a percent at /6."""
    x = white(1, 16, 8, 256, 256)
    return x / x.std()


def node(x, factors, policy, kernel="area", **more):
    with torch.inference_mode():
        latent, report, levels = pack.NODE_CLASS_MAPPINGS["PyramidDownsample"]().shrink(
            {"samples": x}, factors, policy, kernel, **more
        )
    assert latent["samples"] is levels.arrays[-1] and len(levels.arrays) == len(report.splitlines())
    return levels.arrays, report


def stds(x, factors, policy, kernel="area"):
    return [float(level.std()) for level in node(x, factors, policy, kernel)[0]]


@pytest.mark.parametrize(
    "kernel,thirds,sixths,times_six",
    [("bilinear", 0.6665, 0.4222, 2.533), ("bilinear_aligned", 0.671, 0.462, 2.77), ("area", 0.3333, 0.1667, 1.0)],
)
def test_figures_of_issue_116(noise, kernel, thirds, sixths, times_six):
    """/3 then /2, with no gain and times 6. The printed .666, .422 and 2.53 are align_corners False's."""
    _, one, two = stds(noise, "3,2", "content", kernel)
    assert one == pytest.approx(thirds, rel=0.01) and two == pytest.approx(sixths, rel=0.01)
    if kernel == "area":
        with pytest.raises(ValueError, match="nearest sizes that can: height 252 or 258"):
            node(noise, "3,2", "noise")
    else:
        assert stds(noise, "3,2", "noise", kernel)[2] == pytest.approx(times_six, rel=0.01)


def test_an_odd_factor_that_divides_picks_single_pixels(noise):
    x = noise[..., :255, :255]
    assert stds(x, "3", "content", "bilinear")[1] == pytest.approx(1, rel=0.01)
    assert stds(x, "3", "noise", "bilinear")[1] == pytest.approx(3, rel=0.01)
    assert torch.equal(node(x, "3", "content", "bilinear")[0][1], x[..., 1::3, 1::3])
    assert stds(x, "3", "noise", "area")[1] == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factors", ["2", "3", "6", "3,2", "3/2,2", "2,2"])
def test_analytic_gives_white_noise_unit_variance(kernel, factors, much_noise):
    """Within 0.5 % at every level, even and odd sizes."""
    for x in (much_noise, much_noise[..., :255, :191]):
        assert stds(x, factors, "analytic", kernel) == pytest.approx([1] * (factors.count(",") + 2), rel=5e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factors", ["2", "3", "3,2", "3/2,4/3,2", "5/2"])
def test_analytic_is_exact_at_every_position(kernel, factors):
    """The variance of a weighted sum, from what each input pixel contributes: one channel per pixel."""
    h, w = 13, 11
    pixels = torch.eye(h * w, dtype=torch.float64).view(1, h * w, 1, h, w)
    for level in build(pixels, pyramid.parse_factors(factors), "analytic", kernel=kernel).arrays:
        np.testing.assert_allclose((level**2).sum(dim=1), 1, rtol=1e-12)


def test_a_sequence_needs_the_product_of_the_matrices(much_noise):
    """Overlapping cells correlate the noise: exact gains of the steps one by one add up to the wrong one."""
    steps = (Fraction(3, 2), 2)
    once = build(build(much_noise, steps[:1], "analytic").arrays[-1], steps[1:], "analytic").arrays[-1]
    assert float(once.std()) > 1.2
    assert float(build(much_noise, steps, "analytic").arrays[-1].std()) == pytest.approx(1, rel=5e-3)


@pytest.mark.parametrize("policy", GROUPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_match_is_exact_and_keeps_the_mean(policy, kernel):
    """Each group has the input's standard deviation, at each level; samples of a batch don't see each other."""
    x = white(2, 4, 3, 45, 38) * torch.tensor([1, 5]).view(2, 1, 1, 1, 1) + torch.arange(4).view(1, 4, 1, 1, 1)
    levels = build(x, (3, 2), policy, kernel=kernel)
    over = {"match": (1, 2, 3, 4), "match_channel": (2, 3, 4), "match_frame": (3, 4)}[policy]
    for level, plain in zip(levels.arrays, levels.plain):
        torch.testing.assert_close(level.std(over, correction=0), x.std(over, correction=0), rtol=1e-5, atol=0)
        torch.testing.assert_close(level.mean(over), plain.mean(over), rtol=0, atol=1e-5)
    assert torch.equal(build(x[1:], (3, 2), policy, kernel=kernel).arrays[-1], levels.arrays[-1][1:])


@pytest.mark.parametrize("policy", GROUPS)
def test_match_aims_at_the_reference(policy):
    x, reference = white(2, 4, 3, 12, 12), 3 * white(1, 4, 3, 30, 20, seed=1) ** 3
    level = node(x, "2", policy, reference={"samples": reference})[0][-1]
    over = {"match": (1, 2, 3, 4), "match_channel": (2, 3, 4), "match_frame": (3, 4)}[policy]
    want = reference.std(over, correction=0).expand_as(level.std(over))
    torch.testing.assert_close(level.std(over, correction=0), want, rtol=1e-5, atol=0)


def test_content_has_no_gain_and_noise_the_factors():
    x = white(1, 4, 2, 48, 36)
    for kernel in KERNELS:
        content, noise = (build(x, (3, 2), policy, kernel=kernel) for policy in ("content", "noise"))
        for level, plain in zip(content.arrays, content.plain):
            assert level is plain
        for level, plain, gain in zip(noise.arrays, content.arrays, (1, 3, 6)):
            assert torch.equal(level, plain * gain)


def test_noise_is_the_reference_bit_for_bit():
    """Of the denoising trajectory's start: means of 2x2 times 2, twice, on even sizes."""
    x = white(2, 16, 9, 48, 80)
    want = x
    for _ in range(2):
        b, c, t, h, w = want.shape
        want = want.reshape(b, c, t, h // 2, 2, w // 2, 2).mean(dim=(4, 6)) * 2.0
    assert torch.equal(pyramid.downsample(x), want)
    assert torch.equal(node(x, "2,2", "noise")[0][-1], want)


def test_the_trajectory_from_noise_is_the_reference_bit_for_bit():
    """Every step of all three stages, from the node's start and from means of 2x2 times 2 written out, even sizes."""
    x = white(1, 16, 9, 24, 40)
    want = x
    for _ in range(2):
        b, c, t, h, w = want.shape
        want = want.reshape(b, c, t, h // 2, 2, w // 2, 2).mean(dim=(4, 6)) * 2.0
    plan = Plan(ScheduleConfig(), (2, 2, 2), "euler")
    predict, draw = lambda x, t: torch.tanh(x + t / 1000), lambda stage, shape: white(*shape, seed=stage)
    starts = (node(x, "2,2", "noise")[0][-1], want)
    runs = [list(denoise(predict, start, draw, plan)) for start in starts]
    assert len(runs[0]) == 6 and runs[0][-1].latent.shape == x.shape
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.latent, other.latent) and torch.equal(one.x0, other.x0)


def test_a_smooth_latent_keeps_its_std_under_match_and_not_under_noise():
    x = F.interpolate(white(16, 1, 6, 6), size=(96, 96), mode="bicubic").view(1, 16, 1, 96, 96)
    before = float(x.std())
    assert stds(x, "2,2", "match")[-1] == pytest.approx(before, rel=1e-3)
    assert stds(x, "2,2", "content")[-1] == pytest.approx(before, rel=0.03)
    assert stds(x, "2,2", "noise")[-1] > 3.8 * before and stds(x, "2,2", "analytic")[-1] > 3.8 * before


def test_report_says_what_happened_at_each_step(noise):
    import re

    levels, report = node(noise, "3,2", "noise", "bilinear")
    assert [line.split(":")[0] for line in report.splitlines()] == ["256x256", "85x85", "42x42"]
    low, high, gain = map(float, re.fullmatch(LINE, report.splitlines()[1]).groups())
    channels = levels[1].std(dim=(0, 2, 3, 4), correction=0)
    assert (low, high) == pytest.approx((float(channels.min()), float(channels.max())), abs=1e-4) and gain == 3
    assert report.splitlines()[2].endswith("gain 6.0000")
    assert build(noise, (3, Fraction(3, 2)), "match").label == "match, area, 3 x 3/2"


@pytest.mark.parametrize("policy", GROUPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_latent_is_left_as_it_is_and_the_report_says_so(policy, kernel):
    for value in (0.0, 0.7, -3000.0):
        x = torch.full((1, 3, 2, 9, 12), value)
        levels = build(x, (2,), policy, kernel=kernel)
        torch.testing.assert_close(levels.arrays[-1], torch.full((1, 3, 2, 4, 6), value))
        assert "note: at 4x6" in pyramid.describe(levels) and "constant" in levels.notes[0]


def test_constant_channels_are_counted_and_the_others_matched():
    x = white(1, 4, 2, 8, 8)
    x[:, 1] = 2.0
    x[:, 2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(4, 4)  # means of it are zero, so nothing is left
    levels = build(x, (2,), "match_channel")
    assert levels.notes == ("note: at 4x4, 2 channels constant, with nothing to stretch: left as is",)
    assert not levels.arrays[-1][:, 2].any() and (levels.arrays[-1][:, 1] == 2).all()
    torch.testing.assert_close(levels.arrays[-1][:, 0].std(correction=0), x[:, 0].std(correction=0))
    assert not build(x, (2,), "match").notes


@pytest.mark.parametrize("module,function", [("numpy", "asarray"), ("torch", "as_tensor"), ("mlx.core", "array")])
@pytest.mark.parametrize("policy", variance.POLICIES)
def test_frameworks_agree(policy, module, function):
    array = getattr(pytest.importorskip(module), function)
    x = white(2, 3, 2, 12, 18).numpy()
    x[0, 0] = 0.25
    for kernel in ("area", "bicubic"):
        want, got = (build(v, (2, Fraction(3, 2)), policy, kernel=kernel) for v in (x, array(x)))
        assert type(got.arrays[-1]) is type(array(x)) and got.arrays[-1].dtype == array(x).dtype
        np.testing.assert_allclose(np.asarray(got.arrays[-1]), want.arrays[-1], rtol=1e-4, atol=1e-5)
        assert got.notes == want.notes and len(pyramid.describe(got).splitlines()) == 3 + len(got.notes)


@pytest.mark.parametrize(
    "text", ["", "0", "-2", "2,-2", "1/2", "2/0", "0/2", "3/", "2,x", "1.5", "2;2", "nan", "1e3", "\u00b2", "9" * 12]
)
def test_bad_factors_are_refused(text):
    with pytest.raises(ValueError, match="wanted whole numbers or fractions of at least 1"):
        node(white(1, 2, 1, 8, 8), text, "content")


def test_factors_are_read_in_all_their_spellings():
    assert pyramid.parse_factors("3 / 2, 2 06/4") == (Fraction(3, 2), 2, Fraction(3, 2))
    with pytest.raises(ValueError, match="this only makes smaller"):
        build(white(1, 2, 1, 8, 8), (Fraction(1, 2),), "content")
    with pytest.raises(ValueError, match="this only makes smaller"):
        build(white(1, 2, 1, 8, 8), (2, -2), "content")


@pytest.mark.parametrize("policy", variance.POLICIES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_factor_larger_than_the_latent_is_refused(policy, kernel):
    with pytest.raises(ValueError, match=r"step 2, by 5, would leave nothing of 4x6|nearest sizes that can"):
        node(white(1, 2, 1, 8, 12), "2,5", policy, kernel)
    assert build(white(1, 2, 2, 8, 8), (8,), policy, kernel=kernel).arrays[-1].shape[-2:] == (1, 1)


def test_nan_and_misfits_are_refused():
    x, bad = white(1, 4, 3, 8, 8), white(1, 4, 3, 8, 8)
    for value in (float("nan"), float("inf"), -float("inf")):
        bad[0, 1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="latent: holds NaN or Inf"):
            node(bad, "2", "content")
        with pytest.raises(ValueError, match="reference: holds NaN or Inf"):
            node(x, "2", "match", reference={"samples": bad})
    for policy in ("noise", "content", "analytic"):
        with pytest.raises(ValueError, match="takes no reference"):
            node(x, "2", policy, reference={"samples": x})
    with pytest.raises(ValueError, match=r"batch, channels must be .* wanted \[1, 4, 3\], got \[1, 16, 3\]"):
        node(x, "2", "match", reference={"samples": white(1, 16, 3, 8, 8)})
    with pytest.raises(ValueError, match="batch, channels must"):
        node(x, "2", "match", reference={"samples": white(2, 4, 3, 8, 8)})
    with pytest.raises(ValueError, match="batch, channels, frames must"):
        node(x, "2", "match_frame", reference={"samples": white(1, 4, 2, 8, 8)})
    node(x, "2", "match_channel", reference={"samples": white(1, 4, 2, 8, 8)})
    with pytest.raises(ValueError, match="kernel 'box'"):
        node(x, "2", "content", "box")


def test_inputs_are_not_modified():
    x, reference = white(1, 3, 2, 12, 12), white(1, 3, 2, 9, 9, seed=1)
    before = x.clone(), reference.clone()
    for policy in variance.POLICIES:
        for kernel in KERNELS:
            build(x, (3, 2), policy, kernel=kernel, reference=reference if policy in GROUPS else None)
    assert torch.equal(x, before[0]) and torch.equal(reference, before[1])


def test_nothing_heavy_is_imported():
    source = importlib.util.find_spec(variance.__name__).loader.get_source(variance.__name__)
    assert "import torch" not in source and "import mlx" not in source
