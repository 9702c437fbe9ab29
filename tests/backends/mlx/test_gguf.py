"""GGUF with MLX: blocks are widened as they load, to the gguf package's numbers."""

import sys

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("gguf")

from helios_video.helios_core import load  # noqa: E402
from helios_video.helios_core.backends.mlx.files import as_float32, widen  # noqa: E402
from helios_video.helios_core.backends.torch.files import as_float32 as torch_float32  # noqa: E402
from helios_video.helios_core.checkpoint import open_part  # noqa: E402
from helios_video.helios_core.convert.convert import convert  # noqa: E402
from helios_video.helios_core.pipeline import TINY  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return convert(TINY, tmp_path_factory.mktemp("mlx") / "tiny", form="gguf", kind="q5_1")


def test_weights_are_the_torch_twins_to_the_bit(files):
    for path, part in ((files[0], "transformer"), (files[2], "text_encoder")):
        for stored in open_part(path, part).tensors.values():
            assert np.array_equal(as_float32(stored), torch_float32(stored))


def test_a_chunk_is_the_torch_twins(files):
    latents = []
    for backend in ("mlx", "torch"):
        helios = load(files[0], vae=files[1], text_encoder=files[2], backend=backend)
        with helios.backend.inference():
            *_, step = helios.sample(helios.history(64, 64), helios.text("a red circle"), seed=0)
            latents.append(np.array(helios.backend.to_cpu(step.latent)))
        assert helios.parts.estimate().parts["transformer"] > 0
    assert np.linalg.norm(latents[0] - latents[1]) / np.linalg.norm(latents[1]) < 0.03


def test_without_the_package_it_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    stored = next(s for s in open_part(files[0], "transformer").tensors.values() if s.in_gguf)
    with pytest.raises(ValueError, match=r"to read GGUF with MLX, install the gguf package: pip install 'helios-vid"):
        widen(stored)
