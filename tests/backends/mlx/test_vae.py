"""The MLX Wan VAE against the torch one (same tiny random weights), and against itself in blocks and tiles.

Both ways to convolve are tested: matrix products per tap, as on a CPU, and convolutions per frame, as on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
torch = pytest.importorskip("torch")

from helios_video.helios_core.backends.mlx import vae as mlx_vae  # noqa: E402
from helios_video.helios_core.backends.mlx import vae_conv  # noqa: E402
from helios_video.helios_core.backends.mlx.files import channels_last  # noqa: E402
from helios_video.helios_core.backends.mlx.vae import WanVAE  # noqa: E402
from helios_video.helios_core.backends.torch.vae import WanVAE as TorchVAE  # noqa: E402
from helios_video.helios_core.config.model import VAEConfig  # noqa: E402
from helios_video.helios_core.pipeline import Helios  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

TOLERANCE = 1e-5
SIZES = {
    "published": {"base_dim": 8},
    "one block": {"base_dim": 8, "num_res_blocks": 1},
    "wide": {"base_dim": 16, "dim_mult": (1, 2), "temperal_downsample": (True,), "num_res_blocks": 1},
    "odd": {"base_dim": 6, "decoder_base_dim": 10, "dim_mult": (1, 2, 3), "temperal_downsample": (True, False)},
    "still": {"base_dim": 8, "dim_mult": (1, 2), "temperal_downsample": (False,), "num_res_blocks": 1},
    "attention": {"base_dim": 8, "attn_scales": (1.0, 0.25), "num_res_blocks": 1},
}


def load(vae: WanVAE, state: dict, dtype=mx.float32) -> WanVAE:
    """Strict: every name, every shape."""
    vae.load_weights([(name, channels_last(mx.array(x.numpy())).astype(dtype)) for name, x in state.items()])
    return vae


def build(name: str, dtype=mx.float32) -> tuple[TorchVAE, WanVAE]:
    """Both VAEs with the same random weights, norms and biases included."""
    torch.manual_seed(0)
    config = VAEConfig(**SIZES[name])
    theirs = TorchVAE(config).eval().requires_grad_(False)
    for key, p in theirs.named_parameters():
        centre, spread = (1.0, 0.3) if "gamma" in key else (0.0, 0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
        p.normal_(centre, spread)
    return theirs, load(WanVAE(config), theirs.state_dict(), dtype)


@pytest.fixture(scope="module")
def pairs():
    return {name: build(name) for name in SIZES}


@pytest.fixture(scope="module")
def small(pairs):
    return pairs["published"][1]


@pytest.fixture(params=["taps", "frames"])
def path(request, monkeypatch):
    """Runs a test with the products per tap of a CPU, and with the convolutions per frame of a GPU."""
    monkeypatch.setattr(vae_conv, "on_cpu", lambda: request.param == "taps")


def random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def latents(*shape: int, seed: int = 1) -> np.ndarray:
    """Random latents of shape b, t, h, w."""
    return random(shape[0], 16, *shape[1:], seed=seed)


def video(*shape: int) -> np.ndarray:
    return np.tanh(random(shape[0], 3, *shape[1:], seed=2))


def error(ours, theirs) -> float:
    ours, theirs = (
        np.array(x.astype(mx.float32)) if isinstance(x, mx.array) else np.asarray(x) for x in (ours, theirs)
    )
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def join(blocks) -> mx.array:
    return mx.concatenate([*blocks], axis=2)


# ---- parity


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
    theirs = Helios.load("helios-tiny", backend="torch").vae
    ours = Helios.load("helios-tiny", backend="mlx").vae
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


# ---- M4b: every key, none random


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


# ---- time


def test_m14_nine_latents_are_33_frames_and_the_first_needs_no_other(small):
    z = mx.array(latents(1, 9, 2, 2))
    frames = small.decode(z)
    assert frames.shape == (1, 3, 33, 16, 16)
    assert error(frames[:, :, :1], small.decode(z[:, :, :1])) <= TOLERANCE


def test_m15_a_chunk_is_decoded_alone(small):
    a, b = mx.array(latents(1, 3, 2, 3)), mx.array(latents(1, 3, 2, 3, seed=5))
    alone = small.decode(b)
    before = len(tree_flatten(small))
    small.decode(a)
    next(small.stream(a, 1))  # left unfinished
    assert mx.array_equal(small.decode(b), alone)
    assert error(join(small.stream(b, 2)), alone) <= TOLERANCE
    assert len(tree_flatten(small)) == before, "a module kept state"
    both = small.decode(mx.concatenate([a, b], axis=2))
    assert error(both[:, :, -alone.shape[2] :], alone) > 0.05, "decoding joined chunks is another thing"


@pytest.mark.parametrize("name, shape", [("published", (2, 5, 2, 2)), ("wide", (1, 5, 3, 5)), ("odd", (1, 5, 3, 3))])
@pytest.mark.parametrize("step", [None, 1, 2, 4, 20])
def test_streaming_equals_whole(pairs, name, shape, step):
    vae = pairs[name][1]
    z = mx.array(latents(*shape))
    blocks = [*vae.stream(z, step)]
    assert error(join(blocks), vae.decode(z)) <= TOLERANCE
    if step:
        sizes = [vae.factor[0] * min(step, shape[1] - i) for i in range(0, shape[1], step)]
        assert [b.shape[2] for b in blocks] == [sizes[0] - vae.factor[0] + 1, *sizes[1:]]


def test_streams_do_not_disturb_each_other(small):
    za, zb = mx.array(latents(1, 3, 2, 2)), mx.array(latents(1, 3, 2, 2, seed=5))
    a, b = zip(*zip(small.stream(za, 1), small.stream(zb, 1)))
    assert error(join(a), small.decode(za)) <= TOLERANCE
    assert error(join(b), small.decode(zb)) <= TOLERANCE


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_memory_bound_cuts_time_and_changes_nothing(pairs, monkeypatch, frames):
    """Blocks of any number of frames at the widest level, so cuts fall between the pairs that are halved in time."""
    theirs, ours = pairs["published"]
    z, x = latents(1, 5, 2, 2), video(1, 17, 16, 16)
    monkeypatch.setitem(mlx_vae.BLOCK_SIZE, "cpu", 16 * 16 * 8 * frames)
    assert len([*ours.stream(mx.array(z))]) > 1
    assert error(ours.decode(mx.array(z)), theirs.decode(torch.from_numpy(z))) <= TOLERANCE
    assert error(ours.encode(mx.array(x))[0], theirs.encode(torch.from_numpy(x))[0]) <= TOLERANCE


def test_memory_of_a_stream_does_not_grow_with_the_clip(pairs, monkeypatch):
    """Three times the latents, streamed: the peak is that of the shorter clip, plus the latents themselves."""
    ours = pairs["wide"][1]
    monkeypatch.setitem(mlx_vae.BLOCK_SIZE, "cpu", 16 * 16 * 16)

    def peak(length: int) -> int:
        z = mx.array(latents(1, length, 8, 8))
        mx.eval(z)
        mx.clear_cache()
        start = mx.get_active_memory()
        mx.reset_peak_memory()
        for _ in ours.stream(z, 1):
            pass
        return mx.get_peak_memory() - start

    peak(2)
    short = peak(3)
    assert 16 * 16 * 16 * 4 < short, "blocks came unevaluated"
    assert peak(9) <= 1.05 * short + 9 * 16 * 8 * 8 * 4


def test_past_frames_hold_no_block(pairs):
    """What a stream remembers is a copy of a few frames, not a view of all."""
    stream = vae_conv.Stream()
    mx.clear_cache()
    start = mx.get_active_memory()
    x = mx.zeros((1, 64, 32, 32, 8)) + 1
    stream.extend(stream, x, 2)
    mx.eval(x, stream.past)
    del x
    assert mx.get_active_memory() - start <= 2 * 32 * 32 * 8 * 4 + 4096


def test_inputs_are_left_alone(small):
    z, x = mx.array(latents(1, 2, 4, 4)), mx.array(video(1, 5, 16, 16))
    zc, xc = np.array(z), np.array(x)
    small.decode(z), small.encode(x), [*small.stream(z)], small.decode_tiled(z, 2, 1)
    assert np.array_equal(z, zc) and np.array_equal(x, xc)


# ---- tiles


@pytest.mark.parametrize("shape, tile, overlap", [((1, 2, 5, 7), (4, 5), (1, 2)), ((2, 1, 4, 6), 4, 2)])
def test_tiles_are_those_of_torch(pairs, shape, tile, overlap):
    theirs, ours = pairs["one block"]
    z = latents(*shape)
    wanted = theirs.decode_tiled(torch.from_numpy(z), tile, overlap)
    assert error(ours.decode_tiled(mx.array(z), tile=tile, overlap=overlap), wanted) <= TOLERANCE


def test_one_tile_is_the_whole_decode(small):
    z = mx.array(latents(1, 2, 2, 3))
    assert error(small.decode_tiled(z, tile=8, overlap=0), small.decode(z)) <= TOLERANCE


# ---- bad input


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
