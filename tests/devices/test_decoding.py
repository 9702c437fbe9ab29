"""Decoding in the memory there is: how frames are cut into blocks, tiles, and what happens where memory runs out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import load as load_module
from helios_video.helios_core.backends.torch import vae as torch_vae
from helios_video.helios_core.backends.torch import vae_conv
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.config import VAEConfig
from helios_video.helios_core.devices import decoding, frames_at_once

GIB = 2**30
SHAPE = (1, 16, 9, 48, 80)


def test_tiles_only_where_the_frame_does_not_fit():
    vae = VAEConfig()
    assert decoding.choose_tile(vae, SHAPE, 4, "cuda", None) is None
    assert decoding.choose_tile(vae, SHAPE, 4, "cuda", 6 * GIB) is None
    assert [decoding.choose_tile(vae, SHAPE, 4, "cuda", int(n * GIB)) for n in (5, 2.5, 1.6, 0.1)] == [32, 24, 16, 16]
    assert decoding.choose_tile(vae, SHAPE, 2, "cuda", 3 * GIB) is None


def test_a_batch_takes_its_multiple():
    vae = VAEConfig()
    one, two = (decoding.decode_work(vae, (b, 9, 48, 80), 4) for b in (1, 2))
    assert 1.3 < two / one < 2.1  # blocks of fewer frames, twice the frames that convolutions remember
    assert decoding.choose_tile(vae, SHAPE, 4, "cuda", int(5.5 * GIB)) is None
    assert decoding.choose_tile(vae, (2, *SHAPE[1:]), 4, "cuda", int(5.5 * GIB)) == 32


@pytest.mark.parametrize(
    "frames, per_frame, wanted", [(9, 10**7, 9), (17, 10**7, 9), (33, 4 * 10**7, 2), (4, 10**9, 1)]
)
def test_blocks_keep_to_the_cap(frames, per_frame, wanted):
    """Two frames were taken in any case: 1.7 times the cap at 1280x704."""
    assert frames_at_once(frames, per_frame, "cuda") == wanted
    pairs = frames_at_once(frames, per_frame // 15, "cpu", pairs=True)
    assert pairs == frames or pairs % 2 == 0


@pytest.mark.parametrize("cap", [10**6, 40_000, 12_000])
def test_the_walk_is_that_of_the_network(monkeypatch, cap):
    """Which layer takes how many frames of which size, as the network's own flow cuts them."""
    config, seen = VAEConfig(base_dim=4), Counter()
    vae = WanVAE(config).requires_grad_(False)
    monkeypatch.setitem(decoding.BLOCK_SIZE, "cpu", cap)
    flow = torch_vae.flow

    def watched(x, layers, stream):
        seen[tuple(x.shape[2:])] += 1
        return flow(x, layers, stream)

    monkeypatch.setattr(torch_vae, "flow", watched)
    with torch.no_grad():
        list(vae.stream(torch.zeros(1, 16, 5, 8, 8)))
    asked = Counter()
    at_once = decoding.frames_at_once

    def counted(t, per_frame, kind, **options):
        size = at_once(t, per_frame, kind, **options)
        for at in range(0, t if size < t else 0, size):
            asked[min(size, t - at)] += 1
        return size

    monkeypatch.setattr(decoding, "frames_at_once", counted)
    decoding.decode_work.__wrapped__(config, (1, 5, 8, 8), 4, "cpu")
    cut = Counter(t for (t, _, _), n in (seen - Counter({(5, 8, 8): 1})).items() for _ in range(n))
    assert asked == cut


class Stage:
    """A VAE whose decoding runs out of memory after so many blocks, and in tiles larger than `fits`."""

    config, dtype, device = VAEConfig(), torch.float32, torch.device("cpu")

    def __init__(self, blocks: int, fits: int = 99, tiling: str = "auto"):
        self.blocks, self.fits, self.tiling, self.tiles = blocks, fits, tiling, []

    def stream(self, z):
        for i in range(4):
            if i == self.blocks:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            yield torch.full((1, 3, 2, 8, 8), float(i))

    def decode_tiled(self, z, tile):
        self.tiles.append(tile)
        if tile > self.fits:
            raise RuntimeError("GET was unable to find an engine to execute this computation")
        return torch.full((1, 3, 8, 8, 8), 9.0)


@pytest.mark.parametrize("blocks", [0, 2, 3])
def test_out_of_memory_in_a_decode_is_once_more_in_tiles(blocks, caplog):
    vae = Stage(blocks)
    found = torch.cat(list(load_module.decode_blocks(vae, torch.zeros(SHAPE))), dim=2)
    values = found[0, 0, :, 0, 0].tolist()
    assert values == [float(i) for i in range(blocks) for _ in "12"] + [9.0] * (8 - 2 * blocks)
    assert vae.tiles == [32] and "memory ran out: the VAE decodes once more in tiles of 32" in caplog.text


def test_tiles_that_are_too_large_become_smaller_ones():
    vae = Stage(0, fits=24)
    assert [block.shape[2] for block in load_module.decode_blocks(vae, torch.zeros(SHAPE))] == [8]
    assert vae.tiles == [32, 24]
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        list(load_module.decode_blocks(Stage(0, fits=1), torch.zeros(SHAPE)))


def test_other_errors_and_tiling_off_end_the_run():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(load_module.decode_blocks(Stage(1, tiling="off"), torch.zeros(SHAPE)))
    vae = Stage(4)
    vae.decode_tiled = vae.stream = lambda *args: (_ for _ in ()).throw(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        list(load_module.decode_blocks(vae, torch.zeros(SHAPE)))


def test_the_failed_attempts_memory_is_free_before_the_next(monkeypatch):
    """Its tensors hang on the error's frames."""
    import gc
    import weakref

    held = []

    class Large(Stage):
        def stream(self, z):
            work = torch.zeros(10)
            held.append(weakref.ref(work))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            yield work

        def decode_tiled(self, z, tile):
            assert held[0]() is None
            return super().decode_tiled(z, tile)

    gc.disable()
    try:
        assert len(list(load_module.decode_blocks(Large(0), torch.zeros(SHAPE)))) == 1
    finally:
        gc.enable()


def test_whole_and_tiled_decodes_of_a_pipeline_have_the_same_frames(monkeypatch):
    helios = load()
    latent = torch.zeros(1, 16, 3, 24, 24)
    whole = helios.decode(latent)
    stream = WanVAE.stream

    def interrupted(self, z):
        yield next(stream(self, z))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WanVAE, "stream", interrupted)
    assert helios.decode(latent).shape == whole.shape


def test_a_gpus_blocks_of_single_frames_make_the_same_picture(monkeypatch):
    """By the way that a GPU takes through the layers, on the CPU."""
    torch.manual_seed(0)
    vae, z = WanVAE(VAEConfig(base_dim=4)).requires_grad_(False), torch.randn(1, 16, 4, 4, 6)
    with torch.no_grad():
        wanted = vae.decode(z)
        monkeypatch.setattr(vae_conv, "fused", lambda x, weight: False)
        monkeypatch.setattr(torch_vae, "frames_at_once", lambda t, n, *_, **__: frames_at_once(t, n, "cuda"))
        monkeypatch.setitem(decoding.BLOCK_SIZE, "gpu", 1)
        blocks = list(vae.stream(z))
    assert [block.shape[2] for block in blocks] == [1] * 13
    assert torch.allclose(torch.cat(blocks, dim=2), wanted, atol=1e-4)


def test_mlx_decodes_once_more_in_tiles_too(caplog):
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    from helios_video.helios_core.backends.mlx import load as mlx_load

    class Short(Stage):
        dtype = mx.float32

        def stream(self, z):
            yield mx.zeros((1, 3, 2, 8, 8))
            raise RuntimeError("[metal::malloc] Unable to allocate 5 bytes")

        def decode_tiled(self, z, tile):
            return mx.ones((1, 3, 8, 8, 8))

    found = list(mlx_load.decode_blocks(Short(0), torch.zeros(SHAPE)))
    assert [block.shape[2] for block in found] == [2, 6] and "once more in tiles of 32" in caplog.text
    with pytest.raises(RuntimeError, match="Unable to allocate"):
        list(mlx_load.decode_blocks(Short(0, tiling="off"), torch.zeros(SHAPE)))
