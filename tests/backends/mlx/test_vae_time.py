"""The MLX Wan VAE in blocks of time and in tiles against itself. Named: M14, M15."""

from __future__ import annotations

import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
torch = pytest.importorskip("torch")
from helios_video.helios_core.backends.mlx import vae as mlx_vae  # noqa: E402
from helios_video.helios_core.backends.mlx import vae_conv  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from support.mlx_vae import TOLERANCE, error, join, latents, video  # noqa: E402


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


def test_one_tile_is_the_whole_decode(small):
    z = mx.array(latents(1, 2, 2, 3))
    assert error(small.decode_tiled(z, tile=8, overlap=0), small.decode(z)) <= TOLERANCE
