"""The MLX Wan VAE against the torch one (same tiny random weights), and against itself in blocks and tiles.

Both ways to convolve are tested: matrix products per tap, as on a CPU, and convolutions per frame, as on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
torch = pytest.importorskip("torch")
from helios_video.helios_core.backends.mlx import vae_conv  # noqa: E402
from helios_video.helios_core.backends.mlx.vae import WanVAE  # noqa: E402
from helios_video.helios_core.config.model import VAEConfig  # noqa: E402
from helios_video.helios_core.pipeline import Helios  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from support.mlx_vae import SIZES, TOLERANCE, build, error, latents, load, random, video  # noqa: E402


@pytest.fixture(params=["taps", "frames"])
def path(request, monkeypatch):
    """Runs a test with the products per tap of a CPU, and with the convolutions per frame of a GPU."""
    monkeypatch.setattr(vae_conv, "on_cpu", lambda: request.param == "taps")


@pytest.mark.parametrize(
    "name, shape",
    [
        ("published", (2, 9, 24, 16)),
        ("published", (1, 1, 16, 16)),
        ("one block", (1, 5, 16, 16)),
        ("wide", (1, 9, 18, 22)),
        ("odd", (2, 9, 12, 20)),
        ("still", (1, 3, 10, 8)),
        ("attention", (1, 5, 16, 24)),
    ],
)
def test_encode_parity(pairs, path, name, shape):
    theirs, ours = pairs[name]
    x = video(*shape)
    for got, wanted in zip(ours.encode(mx.array(x)), theirs.encode(torch.from_numpy(x))):
        assert error(got, wanted) <= TOLERANCE


@pytest.mark.parametrize(
    "name, shape",
    [
        ("published", (2, 3, 3, 2)),
        ("published", (1, 1, 4, 4)),
        ("one block", (1, 2, 2, 3)),
        ("wide", (2, 5, 7, 5)),
        ("odd", (2, 4, 3, 5)),
        ("still", (1, 3, 4, 5)),
        ("attention", (1, 2, 3, 2)),
    ],
)
def test_decode_parity(pairs, path, name, shape):
    theirs, ours = pairs[name]
    z = latents(*shape)
    for clamp in (True, False):
        frames = ours.decode(mx.array(z), clamp)
        assert error(frames, theirs.decode(torch.from_numpy(z), clamp)) <= TOLERANCE
        assert not clamp or mx.abs(frames).max() <= 1


def test_helios_tiny_decodes_its_own_latents_as_torch(path):
    """Through the real loaders. As 8-bit frames no value differs by more than one, which is above 48 dB."""
    theirs = Helios.load("helios-tiny", backend="torch").parts.vae
    ours = Helios.load("helios-tiny", backend="mlx").parts.vae
    x = np.tanh(np.cumsum(np.cumsum(random(1, 3, 5, 24, 32), axis=3), axis=4) / 20)
    mean, _ = theirs.encode(torch.from_numpy(x))
    assert error(ours.encode(mx.array(x))[0], mean) <= TOLERANCE
    frames, wanted = np.array(ours.decode(mx.array(mean.numpy()))), theirs.decode(mean).numpy()
    assert error(frames, wanted) <= TOLERANCE
    assert np.abs(np.round(frames * 127.5) - np.round(wanted * 127.5)).max() <= 1


@pytest.mark.parametrize("dtype, bound", [(mx.bfloat16, 0.05), (mx.float16, 0.01)])
def test_half_precision_stays_near(pairs, path, dtype, bound):
    """float32 latents in, as the sampler has them: MLX's promotion must not widen the whole network."""
    theirs, _ = pairs["published"]
    ours = build("published", dtype)[1]
    z, x = latents(1, 2, 2, 3), video(1, 5, 16, 16)
    frames, (mean, logvar) = ours.decode(mx.array(z)), ours.encode(mx.array(x))
    assert frames.dtype == mean.dtype == logvar.dtype == ours.dtype == dtype
    assert 1e-5 < error(frames, theirs.decode(torch.from_numpy(z))) <= bound
    assert 1e-5 < error(mean, theirs.encode(torch.from_numpy(x))[0]) <= bound


def test_norm_of_zeros_and_of_tiny_numbers(pairs):
    """The published norm divides by at least 1e-12; a pixel of zeros stays one."""
    theirs, ours = (pair.decoder.norm_out for pair in pairs["published"])
    x = random(1, 8, 1, 2, 2)
    for scale in (0, 1e-8, 1e-3, 1e6):
        got = np.moveaxis(np.array(ours(mx.array(np.moveaxis(x * np.float32(scale), 1, -1)))), -1, 1)
        wanted = theirs(torch.from_numpy(x * np.float32(scale))).numpy()
        assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", SIZES)
def test_m4b_keys_and_shapes_are_those_of_torch(pairs, name):
    theirs, ours = pairs[name]
    state = theirs.state_dict()
    found = dict(tree_flatten(ours.parameters()))
    assert list(state) == sorted(found, key=list(state).index) and len(state) == len(found)
    for key, value in found.items():
        kernel = key.endswith("weight") and value.ndim > 3
        assert np.array_equal(np.moveaxis(np.array(value), -1, 1) if kernel else np.array(value), state[key]), key


@pytest.mark.parametrize("change", ["missing", "unknown", "misshapen", "not turned"])
def test_m4b_loading_is_strict(pairs, change):
    state = dict(pairs["wide"][0].state_dict())
    name = "decoder.conv_in.weight"
    if change == "not turned":
        items = [(key, mx.array(x.numpy())) for key, x in state.items()]
        with pytest.raises(ValueError, match="shape"):
            WanVAE(VAEConfig(**SIZES["wide"])).load_weights(items)
        return
    if change == "missing":
        del state[name]
    else:
        state["decoder.extra" if change == "unknown" else name] = torch.zeros(3, 3)
    with pytest.raises(ValueError):
        load(WanVAE(VAEConfig(**SIZES["wide"])), state)


def test_inputs_are_left_alone(small):
    z, x = mx.array(latents(1, 2, 4, 4)), mx.array(video(1, 5, 16, 16))
    zc, xc = np.array(z), np.array(x)
    small.decode(z), small.encode(x), [*small.stream(z)], small.decode_tiled(z, 2, 1)
    assert np.array_equal(z, zc) and np.array_equal(x, xc)


@pytest.mark.parametrize("shape, tile, overlap", [((1, 2, 5, 7), (4, 5), (1, 2)), ((2, 1, 4, 6), 4, 2)])
def test_tiles_are_those_of_torch(pairs, shape, tile, overlap):
    theirs, ours = pairs["one block"]
    z = latents(*shape)
    wanted = theirs.decode_tiled(torch.from_numpy(z), tile, overlap)
    assert error(ours.decode_tiled(mx.array(z), tile=tile, overlap=overlap), wanted) <= TOLERANCE


@pytest.mark.parametrize("shape", [(1, 3, 6, 16, 16), (1, 3, 5, 20, 16), (1, 4, 5, 16, 16), (3, 5, 16, 16)])
def test_encode_refuses_what_torch_refuses(pairs, shape):
    theirs, ours = pairs["published"]
    with pytest.raises(ValueError) as wanted:
        theirs.encode(torch.zeros(shape))
    with pytest.raises(ValueError) as info:
        ours.encode(mx.zeros(shape))
    assert str(info.value) == str(wanted.value)


@pytest.mark.parametrize("shape", [(1, 4, 2, 2, 2), (16, 2, 2, 2), (1, 16, 0, 2, 2)])
def test_decode_refuses_other_latents(small, shape):
    for decode in (small.decode, small.decode_tiled, lambda z: next(small.stream(z))):
        with pytest.raises(ValueError, match=r"\[b, 16, t, h, w\]"):
            decode(mx.zeros(shape))


@pytest.mark.parametrize("tile, overlap", [(4, 4), ((4, 2), (1, 2)), (4, -1)])
def test_tiles_must_be_larger_than_their_overlap(small, tile, overlap):
    with pytest.raises(ValueError, match="overlap"):
        small.decode_tiled(mx.array(latents(1, 1, 4, 4)), tile=tile, overlap=overlap)


@pytest.mark.parametrize("change", [{"is_residual": True}, {"patch_size": 2}, {"dropout": 0.1}])
def test_other_vaes_are_refused(change):
    with pytest.raises(ValueError, match="wanted a"):
        WanVAE(VAEConfig(base_dim=4, **change))
