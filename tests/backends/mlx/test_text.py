"""The text encoder on MLX against the torch one, through the real loaders. Named: M2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import load_file, save_file
from support.text import PROMPTS, Padded, make_checkpoint

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.mlx import text as mlx_text  # noqa: E402
from helios_video.helios_core.backends.torch import load as torch_load  # noqa: E402
from support.mlx import error  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def texts(checkpoint, dtype=None):
    """The text encoders of torch and MLX."""
    source = open_part(checkpoint[0], "text_encoder")
    names = {None: (None, None), "fp16": (torch.float16, mx.float16), "bf16": (torch.bfloat16, mx.bfloat16)}[dtype]
    return (Padded(load.load_text_encoder(source, dtype=d)) for load, d in zip((torch_load, mlx_load), names))


def test_m2_text_encoder_is_that_of_torch(checkpoint):
    """Through the real loaders, from a file with shared.weight alone (V1); a batch is padded and masked."""
    theirs, ours = texts(checkpoint)
    want, got = theirs(PROMPTS).numpy(), np.asarray(ours(PROMPTS))
    assert got.dtype == np.float32 and got.shape == want.shape and error(got, want) <= 1e-5
    assert np.array_equal(got == 0, want == 0) and not np.allclose(got[0], got[2], atol=0.1)
    assert error(np.asarray(ours(PROMPTS[0])), want[:1]) <= 1e-5


def test_text_of_full_length_is_that_of_torch(checkpoint, caplog):
    """Every distance there is, near, far and beyond the furthest."""
    theirs, ours = texts(checkpoint)
    long = " ".join(PROMPTS * 60)
    assert error(np.asarray(ours(long)), theirs(long).numpy()) <= 1e-5
    assert "fills all 512 tokens" in caplog.text


@pytest.mark.parametrize("count,furthest", [(32, 128), (8, 128), (16, 20)])
def test_position_buckets_are_transformers(count, furthest):
    from transformers.models.umt5.modeling_umt5 import UMT5Attention, UMT5Config

    config = UMT5Config(relative_attention_num_buckets=count, relative_attention_max_distance=furthest)
    attention = UMT5Attention(config, has_relative_attention_bias=True)
    distance = torch.arange(512)[None] - torch.arange(512)[:, None]
    want = attention._relative_position_bucket(distance).numpy()
    assert np.array_equal(mlx_text.buckets(512, count, furthest), want)


@pytest.mark.parametrize("dtype,bound", [("fp16", 2e-3), ("bf16", 2e-2)])
def test_text_encoder_in_half_precision(checkpoint, dtype, bound):
    """The feed-forward's output stays float32 in float16, which it overflows."""
    theirs, _ = texts(checkpoint)
    _, ours = texts(checkpoint, dtype)
    feed = ours.model.encoder.block[0].layer[1].DenseReluDense
    assert feed.wo.weight.dtype == (mx.float32 if dtype == "fp16" else mx.bfloat16)
    assert feed.wi_0.weight.dtype == (mx.float16 if dtype == "fp16" else mx.bfloat16)
    assert error(np.asarray(ours(PROMPTS)), theirs(PROMPTS).numpy()) < bound


def test_m2_text_encoder_loading_is_strict(checkpoint, tmp_path):
    import shutil

    folder = shutil.copytree(checkpoint[0], tmp_path / "copy")
    file = folder / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    extra = {**weights, "encoder.block.9.extra": torch.ones(1)}
    differ = {**weights, "encoder.embed_tokens.weight": weights["shared.weight"] + 1}
    short = {name: x for name, x in weights.items() if name != "encoder.final_layer_norm.weight"}
    for changed, said in ((extra, "1 unexpected"), (short, "1 missing: encoder.final"), (differ, "differ; a UMT5")):
        save_file(changed, file)
        with pytest.raises(ValueError, match=said):
            mlx_load.load_text_encoder(open_part(folder, "text_encoder"))
