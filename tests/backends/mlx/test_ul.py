"""Unified Latents in MLX against torch: the same tiny random weights, the same noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
torch = pytest.importorskip("torch")

from helios_video.helios_core.backends.mlx import load as mlx_backend  # noqa: E402
from helios_video.helios_core.backends.mlx import vae_conv  # noqa: E402
from helios_video.helios_core.backends.mlx.ul import load_ul  # noqa: E402
from helios_video.helios_core.backends.torch import load as torch_backend  # noqa: E402
from helios_video.helios_core.training.files import save_ul  # noqa: E402
from helios_video.helios_core.ul import files  # noqa: E402
from helios_video.helios_core.ul.decode import DecodePlan, decode  # noqa: E402
from support.ul import IMAGE, VIDEO, build, inputs  # noqa: E402

TOLERANCE = 1e-4
CONFIGS = {"image": IMAGE, "video": VIDEO, "frames": replace(VIDEO, window=0, causal=False)}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """The same weights in torch and, through a file, in MLX."""
    theirs = build(CONFIGS[request.param], ("encoder", "decoder"))
    file = tmp_path_factory.mktemp("ul") / "x.safetensors"
    save_ul(theirs, file, steps=1)
    return theirs, load_ul(files.open_file(file), ("encoder", "decoder"))


@pytest.fixture(params=["by taps", "by frames"])
def way(request, monkeypatch):
    """Both ways to convolve: a CPU's and a GPU's."""
    monkeypatch.setattr(vae_conv, "on_cpu", lambda: request.param == "by taps")


def close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=TOLERANCE)


def test_encoder_and_decoder_agree(pair, way):
    theirs, ours = pair
    given = inputs(theirs.config, h=5)
    as_mlx = [mx.array(x.numpy()) for x in given]
    close(ours.encoder(as_mlx[0]), theirs.encoder(given[0]))
    close(ours.decoder(*as_mlx), theirs.decoder(*given))
    close(ours.decoder(*as_mlx[:4]), theirs.decoder(*given[:4]))


@pytest.mark.parametrize("plan", [DecodePlan(), DecodePlan(steps=3, start=-1.0, block=1)], ids=["one step", "three"])
def test_decoding_agrees_with_the_same_seed(pair, plan):
    theirs, ours = pair
    rng = np.random.default_rng(0)
    config = theirs.config
    z = rng.standard_normal((1, 4, 2, 4, 6), dtype=np.float32)
    pixels = rng.uniform(-1, 1, (1, 3, config.frames(2), 32, 48)).astype(np.float32)

    def frames(model, backend):
        with backend.inference():
            made = decode(model, z, plan, backend=backend, pixels=pixels)
            return np.concatenate([np.asarray(backend.to_cpu(d.frames)) for d in made if d.frames is not None], axis=2)

    wanted = frames(theirs, torch_backend)
    close(frames(ours, mlx_backend), wanted)
    assert wanted.std() > 0.05


@pytest.mark.parametrize("pair", ["video"], indirect=True)
def test_tiles_and_blocks_are_the_whole_here_too(pair):
    _, ours = pair
    z = np.random.default_rng(0).standard_normal((1, 4, 3, 4, 10), dtype=np.float32)

    def frames(plan):
        parts = [d.frames for d in decode(ours, z, plan, backend=mlx_backend) if d.frames is not None]
        return np.concatenate([np.asarray(part) for part in parts], axis=2)

    whole = frames(DecodePlan(block=3))
    np.testing.assert_allclose(frames(DecodePlan(block=1, tile=2)), whole, rtol=0, atol=1e-5)


def test_what_only_torch_has_is_said(tmp_path):
    save_ul(build(IMAGE, ("prior",)), tmp_path / "x.safetensors", steps=1)
    with pytest.raises(ValueError, match="no prior; sample with backend torch"):
        load_ul(files.open_file(tmp_path / "x.safetensors"), ("prior",))
