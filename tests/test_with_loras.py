"""LoRA in the pipeline: handles that share a base. Named: V2."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends import torch as adapter
from helios_video.helios_core.with_loras import with_loras
from support.loras import FOREIGN, SAME, error, one_chunk, peft, tiny_lora, write


@pytest.mark.parametrize("by_handle", [True, False])
def test_handles_share_the_base_and_do_not_disturb_each_other(by_handle, tmp_path):
    helios = load()
    path = tiny_lora(tmp_path, helios)
    strong, weak = with_loras(helios, [(path, 1.0)]), with_loras(helios, [(path, 0.25)])
    assert not helios.parts.loaded.networks, "loaded before its first use"
    first = one_chunk(strong)
    plain, faint = one_chunk(helios), one_chunk(weak)
    assert error(first, plain) > 10 * SAME and error(faint, plain) > 10 * SAME and error(first, faint) > 10 * SAME
    assert torch.equal(one_chunk(strong), first) and torch.equal(one_chunk(helios), plain)
    assert strong.parts.vae is helios.parts.vae
    helios.parts.loaded.networks["text_encoder"] = "loaded"
    assert strong.parts.text_encoder == "loaded"
    weight = helios.parts.transformer.proj_out.weight
    assert strong.parts.transformer.proj_out.weight is weight and weak.parts.transformer.proj_out.weight is weight
    (strong if by_handle else helios).parts.release("transformer", "text_encoder")
    loaded = helios.parts.loaded
    assert list(loaded.networks) == ["vae"] and not loaded.adapted and strong.parts.loaded is loaded, (
        "a handle kept the base's tensors"
    )
    assert torch.equal(one_chunk(strong), first)


def test_v2_one_prompt_on_two_handles_in_turn_never_reuses_the_others_keys_and_values(tmp_path):
    helios = load()
    layers = [f"blocks.{i}.attn2.to_{x}" for i in range(helios.config.transformer.num_layers) for x in "kv"]
    shapes = adapter.shapes(helios.config.transformer)
    pairs = {n: (torch.ones(1, shapes[f"{n}.weight"][1]), torch.ones(shapes[f"{n}.weight"][0], 1)) for n in layers}
    changed = with_loras(helios, [(write(tmp_path, peft(pairs)), 0.5)])
    want = [one_chunk(load()), one_chunk(with_loras(load(), [(tmp_path / "lora.safetensors", 0.5)]))]
    for _ in range(2):
        assert torch.equal(one_chunk(helios), want[0]) and torch.equal(one_chunk(changed), want[1])


def test_modes_give_the_same_and_merging_does_not_touch_a_base_in_use(tmp_path):
    helios = load(weight_dtype="fp32")
    path = tiny_lora(tmp_path, helios)
    applied = one_chunk(with_loras(helios, [(path, 0.5)], mode="apply"))
    plain = one_chunk(helios)
    merged = with_loras(helios, [(path, 0.5)], mode="merge")
    assert error(one_chunk(merged), applied) < SAME
    assert torch.equal(one_chunk(helios), plain)
    alone = load(weight_dtype="fp32")
    assert error(one_chunk(with_loras(alone, [(path, 0.5)], mode="merge")), applied) < SAME
    assert "transformer" not in alone.parts.loaded.networks, (
        "a base that nobody samples is not kept beside the merged model"
    )


@pytest.mark.parametrize("mode", ["apply", "merge"])
def test_a_handle_used_under_comfyuis_inference_mode_works_outside_it_and_the_other_way_round(mode, tmp_path):
    helios = load()
    path = tiny_lora(tmp_path, helios)
    with torch.inference_mode():
        first = with_loras(helios, [(path, 0.5)], mode=mode)
        inside = one_chunk(first)
    assert torch.equal(one_chunk(first), inside)
    assert torch.equal(one_chunk(with_loras(helios, [(path, 0.5)], mode=mode)), inside)
    with torch.inference_mode():
        assert torch.equal(one_chunk(with_loras(helios, [(path, 0.5)], mode=mode)), inside)


@pytest.mark.parametrize("offload", ["blocks", "sequential"])
def test_loras_go_with_every_offload(offload, tmp_path):
    helios = load(offload=offload)
    path = tiny_lora(tmp_path, helios)
    for mode in ("apply", "merge"):
        changed, want = (with_loras(h, [(path, 0.5)], mode=mode) for h in (helios, load(offload="none")))
        assert torch.equal(one_chunk(changed), one_chunk(want))
    assert torch.equal(one_chunk(helios), one_chunk(load(offload="none")))
    held = changed.parts.loaded
    helios.parts.vae  # noqa: B018
    assert (changed.parts.loras in held.adapted) == (offload == "blocks"), "sequential holds one component at a time"


def test_loras_stack_in_any_order_and_report(tmp_path):
    helios = load(weight_dtype="fp32")
    one, two = tiny_lora(tmp_path, helios, "one.safetensors"), tiny_lora(tmp_path, helios, "two.safetensors", seed=2)
    stacked = with_loras(with_loras(helios, [(one, 0.5)]), [(two, -1.0)])
    assert stacked.parts.loaded is helios.parts.loaded and stacked.parts.loras.report.splitlines() == [
        "one.safetensors at 0.5: 8 layers changed",
        "two.safetensors at -1: 8 layers changed",
    ]
    assert error(one_chunk(stacked), one_chunk(with_loras(helios, [(two, -1.0), (one, 0.5)]))) < SAME


def test_a_companion_replaces_and_a_forgotten_one_is_pointed_at(tmp_path):
    helios = load(weight_dtype="fp32")
    shapes = adapter.shapes(helios.config.transformer)
    path, partial = tiny_lora(tmp_path, helios), tmp_path / "transformer_partial.pth"
    torch.save({"patch_short.weight": torch.ones(shapes["patch_short.weight"])}, partial)
    forgotten = with_loras(helios, [(path, 1.0)])
    assert "A transformer_partial.pth lies beside it" in forgotten.parts.loras.report
    given = with_loras(forgotten, [], companion=partial)
    assert given.parts.loras.report.splitlines()[1:] == ["transformer_partial.pth: in full"]
    assert torch.equal(given.parts.transformer.patch_short.weight, torch.ones(shapes["patch_short.weight"]))
    assert with_loras(given, [(path, 0.5)]).parts.loras.companion == partial
    with pytest.raises(ValueError, match="two companion files"):
        with_loras(given, [], companion=partial)


def test_bad_requests_are_refused_before_anything_is_loaded(tmp_path):
    helios = load()
    path = tiny_lora(tmp_path, helios)
    for strength in (float("nan"), float("inf"), 1e4):
        with pytest.raises(ValueError, match="LoRA strength .*: wanted a number"):
            with_loras(helios, [(path, strength)])
    with pytest.raises(ValueError, match="mode 'fuse': wanted one of auto, apply, merge"):
        with_loras(helios, [(path, 1.0)], mode="fuse")
    with pytest.raises(ValueError, match="nothing of lora.safetensors fits"):
        with_loras(helios, [(write(tmp_path, FOREIGN["Flux or HunyuanVideo"]), 1.0)])
    with pytest.raises(ValueError, match="is missing"):
        with_loras(helios, [], companion=tmp_path / "transformer_partial.pth")
    assert not helios.parts.loaded.networks
