"""The Wan VAE against diffusers' AutoencoderKLWan (fp32, tiny, random weights), and against itself in blocks and tiles.

Widths, levels and sizes are chosen so that each path of the CPU runs: Winograd's products (32 channels and more, large
frames, sizes that its tiles do not divide), oneDNN's, and the plain path that GPUs and training take.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from helios_video.helios_core.backends.torch import vae_conv
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.config.model import VAEConfig

TOLERANCE = 1e-5
PLAIN = "plain"  # no kernel written for the CPU
SIZES = {
    "published": {"base_dim": 8},
    "wide": {"base_dim": 32, "dim_mult": [1, 2], "temperal_downsample": [True], "num_res_blocks": 1},
    "odd": {"base_dim": 6, "decoder_base_dim": 10, "dim_mult": [1, 2, 3], "temperal_downsample": [True, False]},
    "attention": {"base_dim": 4, "attn_scales": [1.0, 0.25], "num_res_blocks": 1},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with torch.no_grad():
        yield


def build(name: str) -> tuple[AutoencoderKLWan, WanVAE]:
    """diffusers' VAE and ours with the same random weights, norms and biases included."""
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(**SIZES[name]).eval()
    for key, p in theirs.named_parameters():
        centre, spread = (1.0, 0.3) if "gamma" in key else (0.0, 0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
        p.normal_(centre, spread)
    ours = WanVAE(VAEConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours.eval()


@pytest.fixture(scope="module")
def pairs():
    return {name: build(name) for name in SIZES}


@pytest.fixture(scope="module")
def small(pairs):
    return pairs["published"][1]


def latents(vae: WanVAE, *shape: int, seed: int = 1) -> torch.Tensor:
    """Random latents of shape b, t, h, w."""
    b, *rest = shape
    return torch.randn(b, vae.config.z_dim, *rest, generator=torch.Generator().manual_seed(seed))


def video(*shape: int) -> torch.Tensor:
    b, *rest = shape
    return torch.rand(b, 3, *rest, generator=torch.Generator().manual_seed(2)) * 2 - 1


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).norm() / theirs.norm()).item()


# ---- parity


@pytest.fixture(params=["cpu", PLAIN])
def path(request, monkeypatch):
    """Runs a test with the kernels of the CPU, and with the plain path of other devices."""
    if request.param == PLAIN:
        monkeypatch.setattr(vae_conv, "plain_cpu", lambda x: False)


@pytest.mark.parametrize(
    "name, shape", [("published", (2, 9, 40, 24)), ("wide", (1, 9, 58, 46)), ("odd", (2, 9, 12, 20))]
)
def test_encode_parity(pairs, path, name, shape):
    theirs, ours = pairs[name]
    if ours.factor[0] == 2:
        shape = (shape[0], 9, *shape[2:])
    posterior = theirs.encode(video(*shape)).latent_dist
    mean, logvar = ours.encode(video(*shape))
    assert error(mean, posterior.mean) <= TOLERANCE
    assert error(logvar, posterior.logvar) <= TOLERANCE


@pytest.mark.parametrize(
    "name, shape",
    [("published", (2, 3, 5, 3)), ("published", (1, 1, 4, 4)), ("wide", (1, 5, 29, 23)), ("odd", (2, 4, 3, 5))],
)
def test_decode_parity(pairs, path, name, shape):
    theirs, ours = pairs[name]
    z = latents(ours, *shape)
    frames = ours.decode(z)
    assert error(frames, theirs.decode(z).sample) <= TOLERANCE
    assert frames.abs().max() <= 1


def test_winograd_runs(pairs, monkeypatch):
    """The case "wide" does what the parity tests take it for."""
    calls = []
    run = vae_conv.winograd.conv
    monkeypatch.setattr(vae_conv.winograd, "conv", lambda *a: calls.append(a[1].shape) or run(*a))
    pairs["wide"][1].decode(latents(pairs["wide"][1], 1, 5, 29, 23))
    assert torch.Size([64, 64, 3, 3, 3]) in calls and torch.Size([32, 32, 3, 3, 3]) in calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(pairs, dtype):
    theirs, _ = pairs["published"]
    ours = build("published")[1].to(dtype)
    z = latents(ours, 1, 3, 4, 4)
    frames = ours.decode(z.to(dtype))
    assert frames.dtype == ours.dtype == dtype
    assert error(frames.float(), theirs.decode(z).sample) <= (0.05 if dtype == torch.bfloat16 else 0.01)


def test_gradients_match_diffusers():
    theirs, ours = build("odd")
    x = video(2, 5, 8, 12)
    for model in (theirs, ours):
        model.decoder.conv_out.weight.data.mul_(0.1)
        model.decoder.conv_out.bias.data.mul_(0.1)
    with torch.enable_grad():
        mean, _ = ours.encode(x)
        ours.decode(mean, clamp=False).square().mean().backward()
        their_mean = theirs.encode(x).latent_dist.mean
        # diffusers clamps; no value of this small output reaches the limit, so gradients are comparable
        out = theirs.decode(their_mean).sample
        out.square().mean().backward()
    assert out.abs().max() < 1
    wanted = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        if wanted[key].grad is not None and p.grad is not None:
            assert (p.grad - wanted[key].grad).norm() <= 1e-4 * wanted[key].grad.norm() + 1e-7, key


# ---- M4b: every key, none random


@pytest.mark.parametrize("name", SIZES)
def test_m4b_keys_and_shapes_are_those_of_diffusers(name):
    theirs = AutoencoderKLWan(**SIZES[name])
    ours = WanVAE(VAEConfig.from_dict(dict(theirs.config)))
    wanted = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == wanted
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for key, value in ours.state_dict().items():
        assert (value - theirs.state_dict()[key]).abs().max() == 0, key


def test_m4b_builds_on_meta_and_takes_assigned_weights(pairs):
    with torch.device("meta"):
        ours = WanVAE(pairs["published"][1].config)
    ours.load_state_dict(pairs["published"][0].state_dict(), strict=True, assign=True)
    z = latents(ours, 1, 2, 2, 2)
    assert torch.equal(ours.decode(z), pairs["published"][1].decode(z))


# ---- time


def test_m14_nine_latents_are_33_frames_and_the_first_needs_no_other(small):
    z = latents(small, 1, 9, 4, 4)
    frames = small.decode(z)
    assert frames.shape == (1, 3, 33, 32, 32)
    assert error(frames[:, :, :1], small.decode(z[:, :, :1])) <= TOLERANCE


def test_m15_a_chunk_is_decoded_alone(small):
    a, b = latents(small, 1, 3, 4, 4), latents(small, 1, 3, 4, 4, seed=5)
    alone = small.decode(b)
    small.decode(a)
    next(small.stream(a, 1))  # left unfinished
    assert torch.equal(small.decode(b), alone)
    assert error(torch.cat([*small.stream(b, 2)], dim=2), alone) <= TOLERANCE
    assert not list(small.buffers()), "a module kept state"


@pytest.mark.parametrize("name, shape", [("published", (2, 9, 3, 4)), ("wide", (1, 5, 29, 23)), ("odd", (1, 5, 3, 3))])
@pytest.mark.parametrize("step", [None, 1, 2, 4, 20])
def test_streaming_equals_whole(pairs, name, shape, step):
    _, vae = pairs[name]
    z = latents(vae, *shape)
    blocks = [*vae.stream(z, step)]
    assert error(torch.cat(blocks, dim=2), vae.decode(z)) <= TOLERANCE
    if step:
        sizes = [vae.factor[0] * len(part) for part in torch.arange(shape[1]).split(step)]
        assert [b.shape[2] for b in blocks] == [sizes[0] - vae.factor[0] + 1, *sizes[1:]]


def test_streams_do_not_disturb_each_other(small):
    za, zb = latents(small, 1, 3, 4, 4), latents(small, 1, 3, 4, 4, seed=5)
    a, b = zip(*zip(small.stream(za, 1), small.stream(zb, 1)))
    assert error(torch.cat(a, dim=2), small.decode(za)) <= TOLERANCE
    assert error(torch.cat(b, dim=2), small.decode(zb)) <= TOLERANCE


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_memory_bound_cuts_time_and_changes_nothing(pairs, monkeypatch, frames):
    """Blocks of any number of frames at the widest level, so cuts fall between the pairs that are halved in time."""
    theirs, ours = pairs["published"]
    z, x = latents(ours, 1, 5, 3, 3), video(1, 17, 24, 24)
    monkeypatch.setitem(vae_conv_block(), "cpu", 24 * 24 * 8 * frames)
    assert len([*ours.stream(z)]) > 1
    assert error(ours.decode(z), theirs.decode(z).sample) <= TOLERANCE
    assert error(ours.encode(x)[0], theirs.encode(x).latent_dist.mean) <= TOLERANCE


def vae_conv_block() -> dict[str, int]:
    from helios_video.helios_core.backends.torch import vae

    return vae.BLOCK_SIZE


def test_inputs_are_left_alone(small):
    z, x = latents(small, 1, 2, 4, 4), video(1, 5, 16, 16)
    zc, xc = z.clone(), x.clone()
    small.decode(z), small.encode(x), [*small.stream(z)], small.decode_tiled(z, 2, 1)
    assert torch.equal(z, zc) and torch.equal(x, xc)


# ---- tiles


@pytest.mark.parametrize("shape, tile, overlap", [((1, 2, 7, 9), (4, 6), (1, 2)), ((2, 1, 4, 9), (4, 4), (2, 2))])
def test_tiles_are_those_of_diffusers(pairs, shape, tile, overlap):
    theirs, ours = pairs["published"]
    z = latents(ours, *shape)
    sizes = [8 * n for n in (*tile, tile[0] - overlap[0], tile[1] - overlap[1])]
    theirs.enable_tiling(*sizes)
    wanted = theirs.tiled_decode(z).sample
    theirs.disable_tiling()
    assert error(ours.decode_tiled(z, tile=tile, overlap=overlap), wanted) <= TOLERANCE


def test_one_tile_is_the_whole_decode(small):
    z = latents(small, 1, 2, 3, 4)
    assert error(small.decode_tiled(z, tile=8, overlap=0), small.decode(z)) <= TOLERANCE


# ---- bad input


@pytest.mark.parametrize(
    "shape, words",
    [
        ((1, 3, 6, 16, 16), ["6 frames", "5 or 9"]),
        ((1, 3, 5, 20, 16), ["20x16", "height 16 or 24", "width 16:"]),
        ((1, 3, 5, 16, 3), ["16x3", "width 8"]),
        ((1, 4, 5, 16, 16), ["[b, 3, t, h, w]", "[1, 4, 5, 16, 16]"]),
        ((3, 5, 16, 16), ["[b, 3, t, h, w]", "[3, 5, 16, 16]"]),
        ((1, 3, 0, 16, 16), ["[1, 3, 0, 16, 16]"]),
    ],
)
def test_encode_refuses_what_it_cannot_encode(small, shape, words):
    with pytest.raises(ValueError) as info:
        small.encode(torch.zeros(shape))
    assert all(word.rstrip(":") in str(info.value) for word in words), info.value


@pytest.mark.parametrize("shape", [(1, 4, 2, 2, 2), (16, 2, 2, 2), (1, 16, 0, 2, 2)])
def test_decode_refuses_other_latents(small, shape):
    for decode in (small.decode, small.decode_tiled, lambda z: next(small.stream(z))):
        with pytest.raises(ValueError, match=r"\[b, 16, t, h, w\]"):
            decode(torch.zeros(shape))


@pytest.mark.parametrize("tile, overlap", [(4, 4), ((4, 2), (1, 2)), (4, -1)])
def test_tiles_must_be_larger_than_their_overlap(small, tile, overlap):
    with pytest.raises(ValueError, match="overlap"):
        small.decode_tiled(latents(small, 1, 1, 4, 4), tile=tile, overlap=overlap)


@pytest.mark.parametrize("change", [{"is_residual": True}, {"patch_size": 2}, {"dropout": 0.1}])
def test_other_vaes_are_refused(change):
    with pytest.raises(ValueError, match="wanted a"):
        WanVAE(VAEConfig(base_dim=4, **change))


@pytest.mark.parametrize("order", [torch.channels_last_3d, torch.contiguous_format])
def test_what_is_added_is_rounded_once_or_twice(order):
    """In bfloat16 on the CPU, where oneDNN adds in its last pass what lies in its order."""
    layer, x = torch.nn.Conv3d(8, 16, 3).bfloat16(), torch.randn(2, 8, 5, 9, 7).bfloat16()
    x, add = x.contiguous(memory_format=torch.channels_last_3d), torch.randn(2, 16, 3, 9, 7).bfloat16()
    add = add.contiguous(memory_format=order)
    with torch.inference_mode():
        wanted = (
            torch.nn.functional.conv3d(x.float(), layer.weight.float(), layer.bias.float(), padding=(0, 1, 1)) + add
        )
        found = vae_conv.added(x, layer.weight, layer.bias, add)
    assert found is add and (found.float() - wanted).abs().max() <= wanted.abs().max() * 2**-7
