"""LoRA on MLX against LoRA on torch, from the same files: applied and merged, on every layer, on quantised weights.

What of a file fits is decided once for both (lora/test_files.py, torch/test_lora.py). Named: M12.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load as load_helios
from helios_video.helios_core.backends.mlx.weights import place
from helios_video.helios_core.checkpoint.precision import is_float32
from helios_video.helios_core.lora import changes as lora_changes
from helios_video.helios_core.lora.files import read_lora
from helios_video.helios_core.lora.strength import Strength
from helios_video.helios_core.with_loras import read_files, with_loras
from support.loras import (
    BLOCKS,
    CONFIG,
    OUTSIDE,
    PATCHES,
    SHAPES,
    SIZES,
    adapted,
    companion,
    make_model,
    make_pairs,
    one_chunk,
    peft,
    tiny_lora,
)
from support.loras import run as run_torch
from support.loras import run_mlx as run
from support.loras import write as write_lora
from support.mlx import error, load, write

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends import mlx as adapter  # noqa: E402
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.mlx.quant import QuantLinear  # noqa: E402
from helios_video.helios_core.devices.libraries import INSTALL  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

SAME = 1e-5
WIDE = dict(num_attention_heads=2, attention_head_dim=32, rope_dim=(12, 10, 10), ffn_dim=64)  # MLX's groups fit


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same weights on torch and on MLX."""
    theirs = make_model()
    source = write(tmp_path_factory.mktemp("base"), make_model(fuse=False).state_dict(), SIZES)
    return theirs, load(source, mlx_load)


def changed(model, loras, merge=False, companion=None):
    files = read_files(loras, CONFIG, SHAPES)
    return adapter.adapt(model, lora_changes.read_changes(files, companion, CONFIG, SHAPES), merge=merge)


@pytest.mark.parametrize("merge", [False, True])
def test_two_loras_on_every_layer_are_those_of_torch(merge, tmp_path, pair):
    """Joined projections get rows of several, kernels are merged in their own layout; the base stays what it was."""
    theirs, ours = pair
    one = make_pairs([*BLOCKS, *OUTSIDE])
    two = make_pairs([*BLOCKS[:5], "patch_embedding", *PATCHES], rank=3, seed=2)
    loras = [(write_lora(tmp_path, peft(p), f"{i}.safetensors"), s) for i, (p, s) in enumerate([(one, 0.8), (two, -1)])]
    before = run(ours)
    want = run_torch(adapted(theirs, loras, merge))
    assert error(run(changed(ours, loras, merge)), want) < SAME < 1e-2 < error(want, before)
    assert np.array_equal(run(ours), before) and error(before, run_torch(theirs)) < SAME


@pytest.mark.parametrize("merge", [False, True])
def test_m12_everything_that_is_computed_once_follows_the_lora(merge, tmp_path, pair):
    """Timestep-0 modulation, text keys and values, history tokens: each layer on its own."""
    theirs, ours = pair
    layers = ["blocks.0.attn1.to_k", "blocks.1.attn2.to_v", "condition_embedder.time_embedder.linear_1"]
    for layer in (*layers, "condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1", "patch_long"):
        loras = [(write_lora(tmp_path, peft(make_pairs([layer], size=0.5))), 1.0)]
        assert error(run(changed(ours, loras, merge)), run_torch(adapted(theirs, loras, merge))) < SAME, layer


def test_differences_biases_and_whole_norms_are_those_of_torch(tmp_path, pair):
    theirs, ours = pair
    g = torch.Generator().manual_seed(5)
    keys = {"blocks.0.self_attn.k.diff_b": "blocks.0.attn1.to_k.bias", "blocks.1.diff_m": "blocks.1.scale_shift_table"}
    keys |= {
        "blocks.1.self_attn.v.diff": "blocks.1.attn1.to_v.weight",
        "patch_embedding.diff": "patch_embedding.weight",
    }
    tensors = {f"diffusion_model.{key}": 0.1 * torch.randn(SHAPES[name], generator=g) for key, name in keys.items()}
    tensors |= {"transformer.blocks.0.attn1.norm_q.weight": torch.rand(CONFIG.dim, generator=g) + 0.5}
    loras = [(write_lora(tmp_path, peft(make_pairs(BLOCKS[:1])) | tensors), 0.6)]
    assert error(run(changed(ours, loras)), run_torch(adapted(theirs, loras))) < SAME


@pytest.mark.parametrize("heads", [1, 2])
def test_the_companion_switches_amplification_on(heads, tmp_path, pair):
    theirs, ours = pair
    path, _ = companion(tmp_path, heads)
    loras = [(write_lora(tmp_path, peft(make_pairs([*BLOCKS, "patch_short"]))), 0.5)]
    model = changed(ours, loras, companion=path)
    assert error(run(model), run_torch(adapted(theirs, loras, companion=path))) < SAME
    assert model.config.is_amplify_history and not ours.config.is_amplify_history
    assert "history_key_scale" not in ours.blocks[0].attn1


def test_the_companion_needs_torch(tmp_path, monkeypatch):
    path, _ = companion(tmp_path)
    monkeypatch.setattr(lora_changes, "installed", lambda name: name != "torch")
    with pytest.raises(ValueError, match=f"only torch reads; {INSTALL['torch']}, or leave it out"):
        lora_changes.read_companion(path, CONFIG, SHAPES)


def test_what_is_not_changed_is_shared(tmp_path, pair):
    _, ours = pair
    path = write_lora(tmp_path, peft(make_pairs(["blocks.0.attn1.to_q"])))
    old = {id(x) for _, x in tree_flatten(ours.parameters())}
    for merge, size in ((False, 2 * 4 * CONFIG.dim), (True, 3 * CONFIG.dim**2)):
        new = [x for _, x in tree_flatten(changed(ours, [(path, 1.0)], merge).parameters()) if id(x) not in old]
        assert sum(x.size for x in new) == size


@pytest.mark.parametrize("dtype", ["float16", "bf16"])
def test_islands_stay_float32_and_the_lora_takes_the_layers_type(tmp_path, dtype):
    state = make_model(fuse=False).state_dict()
    wanted = torch.float16 if dtype == "float16" else torch.bfloat16
    half = {name: x if is_float32(name) else x.to(wanted) for name, x in state.items()}
    source = write(tmp_path, half, SIZES)
    model = load(source, mlx_load, "auto")
    loras = [(write_lora(tmp_path, peft({k: tuple(x.bfloat16() for x in v) for k, v in
              make_pairs([*BLOCKS, *OUTSIDE]).items()})), 1.0)]  # fmt: skip
    applied, merged = changed(model, loras), changed(model, loras, merge=True)
    assert applied.condition_embedder.time_embedder.linear_1.down.dtype == mx.float32
    assert applied.blocks[0].attn1.to_qkv.down.dtype == merged.blocks[0].attn1.to_qkv.weight.dtype == model.dtype
    assert error(run(applied), run(merged)) < 0.03


@pytest.mark.parametrize("kind", ["int8", "int4_g32"])
def test_applied_works_on_quantised_weights_and_merging_is_refused(kind, tmp_path):
    """What the LoRA adds there is what it adds to the widened weights."""
    sizes = {**SIZES, **WIDE}
    source = write(tmp_path, make_model(fuse=False, **WIDE).state_dict(), sizes)
    model = load(source, mlx_load, kind)
    g = torch.Generator().manual_seed(1)
    shapes = mlx_load.shapes(model.config)
    pairs = {n: (0.1 * torch.randn(4, shapes[f"{n}.weight"][1], generator=g),
                 0.1 * torch.randn(shapes[f"{n}.weight"][0], 4, generator=g)) for n in BLOCKS}  # fmt: skip
    file = read_lora(write_lora(tmp_path, peft(pairs)), shapes)
    changes = lora_changes.read_changes([(file, Strength(1.0))], None, model.config, shapes)
    got = run(adapter.adapt(model, changes, merge=False))
    plain = run(model)
    for name, layer in model.named_modules():
        if isinstance(layer, QuantLinear):
            linear = load(source, mlx_load).blocks[0].ffn.net[2]
            linear.weight, linear.bias = layer.weight, layer.bias
            place(model, name, linear)
    want = run(adapter.adapt(model, changes, merge=True))
    assert error(got, want) < SAME and error(got, plain) > 0.01
    with pytest.raises(ValueError, match="is quantised.*Apply the LoRA instead"):
        adapter.adapt(load(source, mlx_load, kind), changes, merge=True)


def test_handles_share_the_base_and_give_torchs_chunks(tmp_path):
    """Through the pipeline: applied, merged, and the base as before."""
    models = [load_helios(backend=name, weight_dtype="fp32") for name in ("mlx", "torch")]
    path = tiny_lora(tmp_path, models[1])
    chunks = []
    for model in models:
        strong, merged = with_loras(model, [(path, 0.5)]), with_loras(model, [(path, 0.5)], mode="merge")
        chunks.append([one_chunk(x) for x in (strong, merged, model)])
        assert (
            strong.parts.loras.report == "tiny.safetensors at 0.5: 8 layers changed"
            and strong.parts.vae is model.parts.vae
        )
        assert strong.parts.transformer.proj_out.weight is model.parts.transformer.proj_out.weight
    for got, want in zip(*chunks):
        assert error(got, want) < 1e-3
    strong, merged, plain = chunks[0]
    assert error(merged, strong) < SAME and error(strong, plain) > 0.01
    models[0].parts.release("transformer")
    assert np.array_equal(np.array(one_chunk(models[0])), np.array(plain))
