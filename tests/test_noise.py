"""The one source of randomness: same key, same values, whatever was drawn before, in any process: M24, S1."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from helios_video.helios_core.noise import MAX_SEED, Noise

SHAPE = (1, 16, 9, 8, 8)


def test_m24_values_are_frozen():
    """A change here changes every video of every seed."""
    first, block = Noise(0).normal((4,), chunk=0), Noise(7).normal((4,), chunk=2, stage=1, use="block")
    np.testing.assert_allclose(first, (1.4856291, 0.17432593, 0.8620355, -0.16715382), rtol=1e-6)
    np.testing.assert_allclose(block, (1.4764016, -1.6692309, 2.536923, -0.30905437), rtol=1e-6)


def test_m24_same_seed_same_bytes_in_a_fresh_process():
    code = (
        "import sys; from helios_video.helios_core.noise import Noise; "
        f"sys.stdout.buffer.write(Noise(11).normal({SHAPE}, chunk=3, stage=2, use='block').tobytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    here = Noise(11).normal(SHAPE, chunk=3, stage=2, use="block").tobytes()
    assert hashlib.sha256(run.stdout).hexdigest() == hashlib.sha256(here).hexdigest()


def test_every_part_of_the_key_counts():
    keys = [(0, 0, 0, "latent"), (1, 0, 0, "latent"), (0, 1, 0, "latent"), (0, 0, 1, "latent"), (0, 0, 0, "block")]
    draws = [Noise(seed).normal(SHAPE, chunk=chunk, stage=stage, use=use) for seed, chunk, stage, use in keys]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_a_chunk_does_not_depend_on_what_was_drawn_before():
    noise = Noise(5)
    for chunk in range(3):
        noise.normal(SHAPE, chunk=chunk)
        noise.normal(SHAPE, chunk=chunk, stage=1, use="block")
    np.random.seed(1)
    assert np.array_equal(noise.normal(SHAPE, chunk=3), Noise(5).normal(SHAPE, chunk=3))


def test_global_generators_are_left_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    Noise(5).normal(SHAPE, chunk=0)
    assert np.array_equal(np.random.get_state()[1], before)


def test_draws_are_standard_normal_float32():
    x = Noise(MAX_SEED).normal((1, 16, 9, 48, 80), chunk=0)
    assert x.dtype == np.float32 and x.shape == (1, 16, 9, 48, 80)
    assert abs(x.mean()) < 5 / np.sqrt(x.size) and abs(x.std() - 1) < 5 / np.sqrt(2 * x.size)
    assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / x.size)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.5, "seven", None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="whole number from 0 to"):
        Noise(seed)


def test_whole_numbers_of_other_kinds_are_seeds():
    assert np.array_equal(Noise(np.int64(7)).normal(SHAPE, chunk=0), Noise(7).normal(SHAPE, chunk=0))


def test_numbers_that_the_key_has_no_bits_for_have_streams_of_their_own():
    """Stage 256 of chunk 0 was stage 0 of chunk 1, and chunk 2^24 had no key at all."""
    places = [(0, 0), (1, 0), (0, 1), (0, 256), (1, 256), (0, 257), (0, 2**32), (2**24, 0), (2**24, 256), (2**40, 0)]
    draws = {Noise(7).normal((8,), chunk=chunk, stage=stage).tobytes() for chunk, stage in [*places, (2**64 - 1, 0)]}
    assert len(draws) == len(places) + 1
    edge = Noise(7).normal((4,), chunk=2**24 - 1, stage=255, use="block")
    np.testing.assert_allclose(edge, (0.20282945, -0.26572946, 0.3062442, -0.79021573), rtol=1e-6)


@pytest.mark.parametrize("place", [dict(chunk=-1), dict(chunk=2**64), dict(chunk=0, stage=-1), dict(chunk=1.5)])
def test_places_that_cannot_be_are_refused(place):
    name = list(place)[-1]
    with pytest.raises(ValueError, match=f"noise of {name} .*: wanted a whole number from 0 to"):
        Noise(7).normal((4,), **place)
