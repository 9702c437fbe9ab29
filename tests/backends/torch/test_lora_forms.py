"""LoHa, LoKr, LoCon and DoRA on the transformer, and strength per block, against float64 by hand."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.backends.torch.quant import quantise_model
from helios_video.helios_core.lora.files import read_lora
from support.lora_forms import ANY, KERNELS, LENGTHS, in_form, weights, with_lengths
from support.loras import (
    BLOCKS,
    CONFIG,
    OUTSIDE,
    PATCHES,
    SAME,
    SHAPES,
    adapted,
    by_hand,
    error,
    make_model,
    make_pairs,
    peft,
    run,
    write,
)

CASES = [(make, [*BLOCKS, *OUTSIDE]) for make in ANY.values()]
CASES += [(make, [*PATCHES, "patch_embedding"]) for make in KERNELS.values()]


@pytest.fixture(scope="module")
def base():
    return make_model()


@pytest.fixture(scope="module")
def state():
    return {name: p.clone() for name, p in make_model(fuse=False).state_dict().items()}


def named(value):
    return value.__name__ if callable(value) else value[0] if isinstance(value, list) else None


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("make,layers", CASES, ids=named)
def test_every_form_gives_its_weights(make, layers, merge, tmp_path, base, state):
    tensors, changes = in_form(make, layers)
    path = write(tmp_path, tensors)
    file = read_lora(path, SHAPES)
    assert set(file.adapters) == set(layers) and not file.unused
    want = run(make_model(weights(state, changes, 0.7)))
    got = run(adapted(base, [(path, 0.7)], merge))
    print(f"{make.__name__} {'merged' if merge else 'applied'}: {error(got, want):.1e}")
    assert error(want, run(base)) > 1e-3
    assert error(got, want) < SAME


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("make,layers", [CASES[0], CASES[1], CASES[3], CASES[6], CASES[7]], ids=named)
def test_dora_of_every_form(make, layers, kind, tmp_path, base, state):
    tensors, changes = in_form(make, layers)
    tensors, lengths = with_lengths(tensors, layers, kind)
    path = write(tmp_path, tensors)
    assert "and DoRA" in read_lora(path, SHAPES).form
    before = run(base)
    for strength in (1.0, 0.4):
        want = run(make_model(weights(state, changes, strength, lengths)))
        got = run(adapted(base, [(path, strength)]))
        print(f"{make.__name__} DoRA {kind} at {strength}: {error(got, want):.1e}")
        assert error(want, before) > 1e-3 and error(got, want) < SAME
    assert torch.equal(run(base), before) and torch.equal(run(adapted(base, [(path, 0.0)])), before)


def test_low_rank_forms_are_applied_beside_quantised_weights_and_others_are_refused(tmp_path):
    """A LoHa has the product of its ranks, a LoKr those of its matrices; a whole LoKr and DoRA need the weight."""
    model = quantise_model(make_model(fuse=False), "int8")
    held = {n: p.clone() for n, p in make_model(fuse=False).state_dict().items()}
    held |= {f"{layer}.weight": model.get_submodule(layer).weight for layer in BLOCKS}
    model = model.fuse()
    for name in ("loha", "lokr", "lokr_low"):
        tensors, changes = in_form(ANY[name], BLOCKS)
        got = run(adapted(model, [(write(tmp_path, tensors), 1.0)]))
        assert error(got, run(make_model(weights(held, changes, 1.0)))) < SAME, name
    for tensors in (
        in_form(ANY["lokr_whole"], BLOCKS)[0],
        with_lengths(in_form(ANY["locon"], BLOCKS)[0], BLOCKS, "rows")[0],
    ):
        with pytest.raises(
            ValueError, match="is quantised .* DoRA or a large LoKr, load the checkpoint with weight_dtype"
        ):
            adapted(model, [(write(tmp_path, tensors), 1.0)])


@pytest.mark.parametrize("merge", [False, True])
def test_strength_per_block(merge, tmp_path, base, state):
    pairs = make_pairs([*BLOCKS, *OUTSIDE])
    path = write(tmp_path, peft(pairs) | {"blocks.1.attn1.to_q.diff_b": torch.ones(CONFIG.dim)})
    parts = [{k: v for k, v in pairs.items() if k.startswith(start)} for start in ("blocks.0.", "blocks.1.")]
    outside = {k: v for k, v in pairs.items() if not k.startswith("blocks.")}
    for text, factors in (
        ("", (1, 1, 1)),
        ("0=0.5", (0.5, 1, 1)),
        ("1=0, other=2", (1, 0, 2)),
        ("0-=0.5 other = 0", (0.5, 0.5, 0)),
        ("1=1,rest=0", (0, 1, 0)),
        ("0 - 1=-1; rest=0.25", (-1, -1, 0.25)),
    ):
        parted = by_hand(state, *zip((*parts, outside), (0.8 * f for f in factors)))
        parted["blocks.1.attn1.to_q.bias"] = parted["blocks.1.attn1.to_q.bias"] + 0.8 * factors[1]
        got = run(adapted(base, [(path, 0.8, text)], merge))
        assert error(got, run(make_model(parted))) < SAME, text
