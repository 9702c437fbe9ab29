"""Unified Latents' networks: shapes, causality, tiles, windows."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends.torch.ul import UL
from helios_video.helios_core.backends.torch.ul_layers import Past
from helios_video.helios_core.ul.config import ULConfig
from support.ul import IMAGE, SMALL, VIDEO, build, inputs


@pytest.mark.parametrize("config", [IMAGE, VIDEO], ids=["image", "video"])
def test_shapes(config):
    model = build(config)
    x, z, level, level_z, pixels = inputs(config)
    assert model.encoder(x).shape == z.shape
    assert model.decoder(x, z, level, level_z).shape == x.shape
    assert model.prior(z, level_z).shape == model.base(z, level_z).shape == z.shape


def test_the_paper_s_sizes_fit_together():
    with torch.device("meta"):
        model = UL(ULConfig(), ("encoder", "prior", "decoder", "base"))
        x, z, level = torch.empty(1, 3, 1, 512, 512), torch.empty(1, 32, 1, 32, 32), torch.empty(1)
        assert model.encoder(x).shape == z.shape
        assert model.decoder(x, z, level, level).shape == x.shape
    sizes = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in model.parts}
    assert 1e8 < sizes["prior"] < 2e8 and 2e8 < sizes["base"] < 5e8


def test_every_input_of_the_decoder_counts():
    model = build(VIDEO)
    given = list(inputs(VIDEO))
    whole = model.decoder(*given)
    for i, value in enumerate(given):
        changed = [*given]
        changed[i] = value + 0.5
        assert (model.decoder(*changed) - whole).abs().max() > 1e-3, i
    assert (model.decoder(*given[:4]) - whole).abs().max() > 1e-3


def test_a_silent_decoder_believes_the_other_one_as_far_as_its_error_goes():
    """With an answer of zero the clean frames are the posterior mean of N(pixels, error^2) given the noisy ones."""
    decoder = build(VIDEO).decoder
    decoder.conv_out.weight.zero_(), decoder.conv_out.bias.zero_()
    x, z, level, level_z, pixels = inputs(VIDEO)
    v = decoder(x, z, level, level_z, pixels)
    a, s = (torch.sigmoid(sign * level).sqrt()[:, None, None, None, None] for sign in (1, -1))
    precision = (a / s) ** 2 + VIDEO.pixel_error**-2
    wanted = (pixels * VIDEO.pixel_error**-2 + a / s**2 * x) / precision
    torch.testing.assert_close(a * x - s * v, wanted, rtol=0, atol=1e-5)
    assert not decoder(x, z, level, level_z).any()
    _, scale, _ = decoder.around(x, level, pixels)
    torch.testing.assert_close(scale, precision.rsqrt() / s)


def test_the_decoder_in_blocks_of_time_is_the_whole():
    model = build(VIDEO)
    x, z, level, level_z, pixels = inputs(VIDEO, t=4)
    whole, past = model.decoder(x, z, level, level_z, pixels), Past()
    parts = [
        model.decoder(x[:, :, 4 * a : 4 * b], z[:, :, a:b], level, level_z, pixels[:, :, 4 * a : 4 * b], past)
        for a, b in ((0, 1), (1, 3), (3, 4))
    ]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-5)


def test_nothing_later_reaches_a_frame():
    model = build(VIDEO)
    x, z, *rest = inputs(VIDEO, t=3)
    later = z.clone()
    later[:, :, 2] += 1
    change = (model.decoder(x, later, *rest) - model.decoder(x, z, *rest)).abs().amax((0, 1, 3, 4))
    assert not change[:8].any() and (change[8:] > 1e-4).all()


def test_a_latent_changes_no_pixel_out_of_reach():
    """What tiles are cut by: beyond its window and `reach`, nothing."""
    model = build(VIDEO)
    x, z, *rest = inputs(VIDEO, t=1, h=2, w=16)
    other = x.clone()
    other[..., 64:72] += 1  # latent column 8, the first of its window
    change = (model.decoder(other, z, *rest) - model.decoder(x, z, *rest)).abs().amax((0, 1, 2, 3))
    hit = change.nonzero().flatten() // 8
    # the convolutions before the windows reach into neighbouring ones, those after them out again
    reach = VIDEO.reach
    low, high = (8 - reach) // 2 * 2 - reach, -(-(9 + reach) // 2) * 2 + reach
    assert low <= hit.min() and hit.max() < high and hit.min() < 8 < hit.max()


def test_windows_need_not_fill_the_grid():
    """Cells that pad the last window are not attended to: a taller picture's first rows, cut alone, are the same."""
    attention = build(VIDEO).decoder.middle[0].attention
    x = torch.randn(1, 2, 5, 4, 16)
    torch.testing.assert_close(attention(x)[:, :, :4], attention(x[:, :, :4]))
    torch.testing.assert_close(attention(x)[:, :, 4:], attention(x[:, :, 4:]))


def test_whole_frames_attend_across_windows_only_without_a_window():
    x = torch.randn(1, 2, 4, 4, 16)
    other = x.clone()
    other[0, 0, 0, 0] += 1
    for config, elsewhere in ((VIDEO, False), (IMAGE, True)):
        attention = build(config).decoder.middle[0].attention
        change = (attention(other) - attention(x)).abs().amax(-1)[0]
        assert bool(change[0, 3, 3]) == elsewhere and not change[1].any()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stride": (1, 16)}, "stride of 8 pixels, not 16"),
        ({"head_dim": 12}, "multiples of head_dim"),
        ({"prior_blocks": (1, 2)}, "differ in length"),
        ({"latents_mean": (0.0,)}, "must hold 4 numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        ULConfig(**{"latent_channels": 4, "stride": (1, 8), **SMALL, **given})


def test_frames_and_latents():
    assert [VIDEO.latents(f) for f in (1, 5, 33)] == [1, 2, 9] and VIDEO.frames(9) == 33
    plain = ULConfig(latent_channels=4, stride=(4, 8), **SMALL)
    assert plain.latents(16) == 4 and plain.frames(4) == 16
    with pytest.raises(ValueError, match="1 \\+ a multiple of 4"):
        VIDEO.latents(4)
    with pytest.raises(ValueError, match="wanted a multiple of 4"):
        plain.latents(5)
