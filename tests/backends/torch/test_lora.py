"""LoRA on the transformer: every key form, scaling, several at once, merged against applied, the base left alone.

The oracle is W + strength * scale * up @ down in float64, and diffusers' own loading where peft is installed.
Named: M12.
"""

from __future__ import annotations

import json

import pytest
import torch
from helios_video.helios_core.backends.torch import kernels
from helios_video.helios_core.backends.torch.layers import Linear
from helios_video.helios_core.backends.torch.lora import LoraLinear
from helios_video.helios_core.backends.torch.offload import matrices, stream_blocks
from helios_video.helios_core.backends.torch.quant import quantise_model
from helios_video.helios_core.checkpoint.precision import is_float32
from helios_video.helios_core.lora import files, names
from support.loras import (
    BLOCKS,
    CONFIG,
    FORMS,
    OUTSIDE,
    SAME,
    SHAPES,
    SIZES,
    adapted,
    by_hand,
    companion,
    error,
    kohya,
    make_model,
    make_pairs,
    peft,
    run,
    write,
)


@pytest.fixture(scope="module")
def base():
    return make_model()


@pytest.fixture(scope="module")
def state():
    return {name: p.clone() for name, p in make_model(fuse=False).state_dict().items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_key_form_gives_the_same_weights(form, tmp_path, base, state):
    pairs = make_pairs([*BLOCKS, *OUTSIDE])
    path = write(tmp_path, FORMS[form](pairs))
    file = files.read_lora(path, SHAPES)
    assert set(file.adapters) == set(pairs) and not file.unused
    want = run(make_model(by_hand(state, (pairs, 0.7))))
    assert error(want, run(base)) > 0.01
    assert error(run(adapted(base, [(path, 0.7)])), want) < SAME


@pytest.mark.parametrize("merge", [False, True])
def test_m12_everything_that_is_computed_once_follows_the_lora(merge, tmp_path, base, state):
    """Joined projections, timestep-0 modulation, text keys and values, history tokens: each layer on its own."""
    before = run(base)
    layers = ["blocks.0.attn1.to_k", "blocks.1.attn2.to_v", "condition_embedder.time_embedder.linear_1"]
    for layer in (*layers, "condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1", "patch_long"):
        pairs = make_pairs([layer], size=0.5)
        model = adapted(base, [(write(tmp_path, peft(pairs)), 1.0)], merge)
        want = run(make_model(by_hand(state, (pairs, 1.0))))
        assert error(run(model), want) < SAME and error(want, before) > 1e-4, layer
        assert torch.equal(run(base), before), layer


def test_merged_equals_applied_and_the_base_is_restored_exactly(tmp_path, base, state):
    one, two = make_pairs(seed=1), make_pairs([*BLOCKS, *OUTSIDE, "patch_short", "patch_mid"], rank=3, seed=2)
    loras = [(write(tmp_path, peft(one), "1.safetensors"), 0.8), (write(tmp_path, peft(two), "2.safetensors"), -1.5)]
    before, tensors = run(base), {name: p.clone() for name, p in base.state_dict().items()}
    want = run(make_model(by_hand(state, (one, 0.8), (two, -1.5))))
    applied, merged = adapted(base, loras), adapted(base, loras, merge=True)
    assert error(run(applied), run(merged)) < SAME
    assert error(run(applied), want) < SAME and error(run(merged), want) < SAME
    other = run(adapted(base, [(loras[0][0], 0.3)]))
    assert error(other, run(make_model(by_hand(state, (one, 0.3))))) < SAME
    assert torch.equal(run(base), before) and torch.equal(run(adapted(base, [(loras[0][0], 0.0)])), before)
    assert all(torch.equal(p, tensors[name]) for name, p in base.state_dict().items())


def test_what_is_not_changed_is_shared(tmp_path, base):
    path = write(tmp_path, peft(make_pairs(["blocks.0.attn1.to_q"])))
    old = {p.data_ptr() for p in base.parameters()}
    applied, merged = adapted(base, [(path, 1.0)]), adapted(base, [(path, 1.0)], merge=True)
    assert sum(p.numel() for p in applied.parameters() if p.data_ptr() not in old) == 2 * 4 * CONFIG.dim
    assert sum(p.numel() for p in merged.parameters() if p.data_ptr() not in old) == 3 * CONFIG.dim**2
    assert type(base.blocks[0].attn1.to_qkv) is type(base.proj_out) or not hasattr(base.blocks[0].attn1.to_qkv, "ups")


def test_bf16_islands_stay_float32_and_the_lora_takes_the_layers_type(tmp_path):
    model = make_model()
    for name, p in model.named_parameters():
        p.data = p if is_float32(name) else p.bfloat16()
    pairs = make_pairs([*BLOCKS, *OUTSIDE])
    loras = [(write(tmp_path, peft(pairs)), 1.0)]
    applied, merged = adapted(model, loras), adapted(model, loras, merge=True)
    assert applied.condition_embedder.time_embedder.linear_1.down.dtype == torch.float32
    assert applied.blocks[0].attn1.to_qkv.down.dtype == merged.blocks[0].attn1.to_qkv.weight.dtype == torch.bfloat16
    assert error(run(applied), run(merged)) < 0.02


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "int8", "int4"])
def test_applied_works_on_quantised_weights_and_merging_is_refused(dtype, tmp_path):
    model = quantise_model(make_model(fuse=False), dtype).fuse()
    pairs = make_pairs()
    loras = [(write(tmp_path, peft(pairs)), 1.0)]
    weights = {n: p.clone() for n, p in make_model(fuse=False).state_dict().items()}
    for layer in BLOCKS:
        weights[f"{layer}.weight"] = dict(quantise_model(make_model(fuse=False), dtype).named_modules())[layer].weight
    want = run(make_model(by_hand(weights, (pairs, 1.0))))
    assert error(run(adapted(model, loras)), want) < SAME
    with pytest.raises(ValueError, match="is quantised.*Apply the LoRA instead"):
        adapted(model, loras, merge=True)


def test_applied_to_part_of_a_batch_of_long_sequences():
    """A slice of tokens is not contiguous; the feed-forward takes a thousand at a time on the CPU."""
    torch.manual_seed(0)
    base, x = Linear(8, 12), torch.randn(2, 2100, 8)[:, 3:2003]
    down, up = torch.randn(2, 8), torch.randn(4, 2)
    layer = LoraLinear(base, [(5, down, up)])
    want = base.weight.detach().clone()
    want[5:9] += up @ down
    with torch.inference_mode():
        for gelu in (False, True):
            assert error(layer(x, gelu), kernels.linear(x, want, base.bias, gelu)) < SAME


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_streamed_blocks_stream_their_loras_too(dtype, tmp_path):
    model = make_model(fuse=False)
    model = (quantise_model(model, dtype) if dtype == "int8" else model).fuse()
    loras = [(write(tmp_path, peft(make_pairs([*BLOCKS, *OUTSIDE]))), 1.0)]
    plain, want = run(model), run(adapted(model, loras))
    stream_blocks(model, "cpu")
    changed = adapted(model, loras)
    assert any(t is changed.blocks[0].attn1.to_qkv.down for t in matrices(changed.blocks[0]))
    for _ in range(2):
        assert torch.equal(run(changed), want) and torch.equal(run(model), plain)


ALPHA, RANK = 8.0, 4
DIFFUSERS = {"transformer.lora_alpha": ALPHA, "transformer.r": RANK, "transformer.use_rslora": False}
SCALED = {
    "no alpha": ({}, {}, 1.0),
    "alpha tensors": ({"alpha": ALPHA}, {}, ALPHA / RANK),
    "lycoris, rank-stabilised": ({"alpha": ALPHA}, {"ss_network_args": '{"rs_lora": "True"}'}, ALPHA / RANK**0.5),
    "kohya without": ({"alpha": ALPHA}, {"ss_network_args": '{"rs_lora": "False"}'}, ALPHA / RANK),
    "metadata": ({}, {"lora_adapter_metadata": json.dumps(DIFFUSERS)}, ALPHA / RANK),
    "metadata, rank-stabilised": (
        {},
        {"lora_adapter_metadata": json.dumps({**DIFFUSERS, "transformer.use_rslora": True})},
        ALPHA / RANK**0.5,
    ),
    "a tensor goes before the metadata": (
        {"alpha": 2.0},
        {"lora_adapter_metadata": json.dumps(DIFFUSERS)},
        2.0 / RANK,
    ),
}


@pytest.mark.parametrize("case", SCALED)
def test_alpha_and_rank_stabilised_scaling(case, tmp_path, base, state):
    extra, metadata, scale = SCALED[case]
    pairs = make_pairs()
    tensors = peft(pairs, "lora_unet_", ("lora_down", "lora_up"), kohya)
    tensors |= {f"lora_unet_{kohya(layer)}.{k}": torch.tensor(v) for layer in pairs for k, v in extra.items()}
    path = write(tmp_path, tensors, **metadata)
    want = run(make_model(by_hand(state, (pairs, 0.5 * scale))))
    assert error(run(adapted(base, [(path, 0.5)])), want) < SAME


def test_alpha_of_single_layers_and_of_pefts_own_folder(tmp_path, base, state):
    pairs = make_pairs()
    path = write(tmp_path, peft(pairs, "base_model.model."), "adapter_model.safetensors")
    facts = {"lora_alpha": 8, "r": 4, "use_rslora": False, "alpha_pattern": {"blocks.0.attn1.to_q": 2, "ffn.net.2": 16}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(facts))
    factors = {"blocks.0.attn1.to_q": 0.5, "blocks.0.ffn.net.2": 4.0, "blocks.1.ffn.net.2": 4.0}
    changes = [({layer: pair}, factors.get(layer, 2.0)) for layer, pair in pairs.items()]
    want = run(make_model(by_hand(state, *changes)))
    assert error(run(adapted(base, [(path, 1.0)])), want) < SAME


@pytest.mark.parametrize("merge", [False, True])
def test_differences_and_biases_of_wan_files(merge, tmp_path, base, state):
    """.diff and .diff_b, of norms and tables too, do not follow alpha; the bias of PEFT's pairs does."""
    pairs, g = make_pairs(["blocks.0.attn1.to_q"]), torch.Generator().manual_seed(5)
    changed = {
        "blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
        "blocks.1.self_attn.v.diff": "blocks.1.attn1.to_v.weight",
        "blocks.1.cross_attn.norm_k.diff": "blocks.1.attn2.norm_k.weight",
        "blocks.0.norm3.diff": "blocks.0.norm2.weight",
        "blocks.0.norm3.diff_b": "blocks.0.norm2.bias",
        "blocks.1.diff_m": "blocks.1.scale_shift_table",
        "head.modulation.diff": "norm_out.scale_shift_table",
        "head.head.diff": "proj_out.weight",
        "patch_embedding.diff": "patch_embedding.weight",
    }
    deltas = {key: torch.randn(SHAPES[name], generator=g) * 0.1 for key, name in changed.items()}
    tensors = peft(pairs, "diffusion_model.", ("lora_down", "lora_up"), names.wan_name)
    tensors |= {f"diffusion_model.{key}": delta for key, delta in deltas.items()}
    tensors |= {"diffusion_model.blocks.0.self_attn.q.alpha": torch.tensor(2.0)}
    tensors |= {"diffusion_model.blocks.0.self_attn.q.lora_up.bias": torch.ones(CONFIG.dim)}
    path = write(tmp_path, tensors)
    assert not files.read_lora(path, SHAPES).unused
    want = by_hand(state, (pairs, 0.6 * 0.5))
    for key, name in changed.items():
        want[name] = want[name] + 0.6 * deltas[key]
    want["blocks.0.attn1.to_q.bias"] = want["blocks.0.attn1.to_q.bias"] + 0.6 * 0.5
    assert error(run(adapted(base, [(path, 0.6)], merge)), run(make_model(want))) < SAME


def test_whole_norm_weights_replace_or_blend(tmp_path, base, state):
    """The official training saves trained norms in full beside the pairs."""
    norm = torch.rand(CONFIG.dim) + 0.5
    path = write(tmp_path, {**peft(make_pairs(BLOCKS[:1])), "transformer.blocks.0.attn1.norm_q.weight": norm})
    assert torch.equal(adapted(base, [(path, 1.0)]).blocks[0].attn1.norm_q.weight, norm)
    half = adapted(base, [(path, 0.5)]).blocks[0].attn1.norm_q.weight
    assert torch.allclose(half, (norm + state["blocks.0.attn1.norm_q.weight"]) / 2, atol=1e-6)


@pytest.mark.parametrize("heads", [0, 1, 2])
@pytest.mark.parametrize("merge", [False, True])
def test_the_official_companion_replaces_embeddings_and_switches_amplification_on(merge, heads, tmp_path, base, state):
    path, tensors = companion(tmp_path, heads)
    pairs = make_pairs([*BLOCKS, "patch_short"])
    model = adapted(base, [(write(tmp_path, peft(pairs)), 0.5)], merge, companion=path)
    wanted = {**state, **{k: v for k, v in tensors.items() if "_loras" not in k and "gan" not in k}}
    sizes = dict(is_amplify_history=True, history_scale_mode="scalar" if heads == 1 else "per_head") if heads else {}
    want = make_model(by_hand(wanted, (pairs, 0.5)), **sizes)
    assert error(run(model), run(want)) < SAME
    assert model.config.is_amplify_history is bool(heads) and not base.config.is_amplify_history
    assert base.blocks[0].attn1.history_key_scale is None
    if heads:
        assert error(run(model), run(adapted(base, [], companion=companion(tmp_path, 0)[0]))) > 1e-3


def test_companion_trained_with_lora_on_the_embeddings_holds_them_as_base_layers(tmp_path, base):
    path, tensors = companion(tmp_path, 0)
    wrapped = {k.replace(".", ".base_layer."): v for k, v in tensors.items() if k.startswith("patch")}
    torch.save({**wrapped, "patch_short.lora_A.default.weight": torch.ones(2, 16, 1, 2, 2)}, path)
    assert torch.equal(adapted(base, [], companion=path).patch_long.weight, tensors["patch_long.weight"])


@pytest.mark.parametrize("form", ["diffusers", "wan, down and up", "kohya"])
def test_parity_with_diffusers(form, tmp_path, state):
    pytest.importorskip("peft")
    from diffusers import HeliosTransformer3DModel
    from diffusers.loaders import HeliosLoraLoaderMixin

    pairs = make_pairs()
    tensors = FORMS[form](pairs)
    if form == "kohya":
        tensors |= {f"lora_unet_{kohya(layer)}.alpha": torch.tensor(2.0) for layer in pairs}
    path = write(tmp_path, tensors)
    oracle = HeliosTransformer3DModel(**SIZES).eval()
    oracle.load_state_dict(state)
    found, metadata = HeliosLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    HeliosLoraLoaderMixin.load_lora_into_transformer(found, oracle, adapter_name="a", metadata=metadata)
    oracle.set_adapters(["a"], [0.7])
    oracle.fuse_lora()
    oracle.unload_lora()
    model = adapted(make_model(state), [(path, 0.7)])
    assert error(run(model), run(make_model(oracle.state_dict()))) < SAME
