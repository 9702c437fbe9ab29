"""Control of helios-tiny with random adapters: what strength 0 and an untrained file do, chunks, batches, digests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.control import POLICIES, encode_clip, parse_chunks
from helios_video.helios_core.disk import Store
from helios_video.helios_core.generate import chunk_key
from helios_video.helios_core.with_control import with_control
from helios_video.helios_core.with_loras import with_loras
from support.control import adapter, latents, sampled
from support.loras import tiny_lora

CONFIG = load().config.transformer


@pytest.fixture(scope="module")
def helios():
    return load(backend="torch")


@pytest.fixture(scope="module")
def plain(helios):
    return sampled(helios)


@pytest.mark.parametrize("lora", [False, True])
def test_strength_0_and_an_untrained_adapter_are_bit_equal_to_no_control(helios, plain, tmp_path, lora):
    z, file = latents(helios), adapter(tmp_path, CONFIG, lora=lora)
    assert np.array_equal(sampled(with_control(helios, file, z, strength=0)), plain)
    new = adapter(tmp_path, CONFIG, scale=0, lora=lora, name="new.safetensors")
    assert np.array_equal(sampled(with_control(helios, new, z)), plain)
    under = with_control(helios, file, z)
    assert not np.array_equal(sampled(under), plain)
    assert np.array_equal(sampled(helios), plain), "the handle it was made from changed"


def test_it_acts_from_its_first_chunk_to_its_last_and_as_far_as_its_latents_go(helios, tmp_path):
    file, z = adapter(tmp_path, CONFIG, lora=True), latents(helios, 2)
    history = helios.history(64, 64)
    for chunk in range(4):
        alone = sampled(helios, history=history)
        late, short = with_control(helios, file, z, first=1), with_control(helios, file, z, first=1, last=1)
        assert np.array_equal(sampled(late, history=history), alone) == (chunk not in (1, 2)), chunk
        assert np.array_equal(sampled(short, history=history), alone) == (chunk != 1), chunk
        assert (chunk_key(late, history, None) == chunk_key(helios, history, None)) == (chunk not in (1, 2))
        history = history.append(helios.backend.array(alone))


def test_the_latents_of_a_chunk_are_those_of_its_part_of_the_clip(helios, tmp_path):
    file, z = adapter(tmp_path, CONFIG), latents(helios, 2)
    first = helios.backend.array(sampled(helios))
    history = helios.history(64, 64).append(first)
    second = with_control(helios, file, z[:, :, 9:], first=1)
    assert np.array_equal(sampled(with_control(helios, file, z), history=history), sampled(second, history=history))


def test_batches_and_guidance(tmp_path):
    helios = load(backend="torch", weight_dtype="fp32")
    file, z = adapter(tmp_path, CONFIG), latents(helios, batch=2)
    both = sampled(with_control(helios, file, z), batch=2, cfg=2.0)
    for i in range(2):
        alone = sampled(with_control(helios, file, z[i : i + 1]), seed=i, cfg=2.0)
        assert np.allclose(both[i : i + 1], alone, atol=1e-3), i
    same = sampled(with_control(helios, file, z[:1]), batch=2)
    assert np.allclose(same[:1], sampled(with_control(helios, file, z[:1])), atol=1e-3)


def test_two_controls_add_up_and_a_lora_goes_with_them(helios, tmp_path):
    file, z = adapter(tmp_path, CONFIG), latents(helios)
    half = with_control(helios, file, z, strength=0.5)
    assert np.allclose(
        sampled(with_control(half, file, z, strength=0.5)), sampled(with_control(helios, file, z)), atol=1e-2
    )
    lora = tiny_lora(tmp_path, helios)
    before = with_control(with_loras(helios, [(lora, 1.0)]), file, z)
    behind = with_loras(with_control(helios, file, z), [(lora, 1.0)])
    assert np.array_equal(sampled(before), sampled(behind))


def test_a_key_knows_adapter_strength_policy_and_latents(helios, tmp_path):
    file, z, history = adapter(tmp_path, CONFIG), latents(helios), helios.history(64, 64)
    made = [with_control(helios, file, z)]
    made += [with_control(helios, file, z, strength=0.5), with_control(helios, file, z, policy="match")]
    made += [with_control(helios, file, z + 1), helios]
    other = adapter(tmp_path, CONFIG, scale=0.1, name="other.safetensors")
    made += [with_control(helios, other, z)]
    keys = [chunk_key(one, history, None) for one in made]
    assert len(set(keys)) == len(keys)
    assert chunk_key(with_control(helios, file, z.clone()), history, None) == keys[0]
    assert chunk_key(with_control(helios, file, z, policy="content"), history, None) == keys[0], "the adapter's own"


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_is_another_control(helios, tmp_path, policy):
    file, z = adapter(tmp_path, CONFIG), latents(helios)
    own = sampled(with_control(helios, file, z))
    assert np.array_equal(sampled(with_control(helios, file, z, policy=policy)), own) == (
        policy in POLICIES[:1] + ("content",)
    )


def test_finished_chunks_are_found_again(helios, tmp_path):
    file, z = adapter(tmp_path, CONFIG), latents(helios)
    under, store = with_control(helios, file, z), Store(tmp_path / "store")
    run = dict(frames=66, steps=(1, 1, 1), store=store)
    steps = [sum(hasattr(e, "stage") for e in one.generate("a red circle", **run)) for one in (under, under, helios)]
    assert steps == [6, 0, 6]


def test_a_clip_is_cut_into_chunks_of_33(helios):
    frames, said = np.zeros((70, 48, 80, 3), np.uint8), []
    frames[33:, :24] = 255
    z = encode_clip(helios, frames, 64, 64, tell=said.append)
    assert tuple(z.shape) == (1, 16, 18, 8, 8) and "last 4 frames" in said[0]
    alone = encode_clip(helios, frames[33:66], 64, 64)
    assert torch.equal(z[:, :, 9:], alone)


def test_inspect_says_what_a_file_is(tmp_path, capsys):
    assert main(["inspect", str(adapter(tmp_path, CONFIG, lora=True))]) == 0
    said = capsys.readouterr().out
    assert "a control adapter (mask) for models 160 wide" in said and "--control-adapter" in said
    assert "models/controlnet" in said


@pytest.mark.parametrize("text, wanted", [("", (0, None)), ("2-5", (2, 5)), ("3-", (3, None)), (" 4 ", (4, 4))])
def test_chunks_are_read(text, wanted):
    assert parse_chunks(text) == wanted


@pytest.mark.parametrize("text", ["5-2", "-3", "a", "1,2", "1-2-3"])
def test_chunks_that_are_none(text):
    with pytest.raises(ValueError, match="control chunks"):
        parse_chunks(text)


def test_refusals(helios, tmp_path):
    file, z = adapter(tmp_path, CONFIG), latents(helios)
    with pytest.raises(ValueError, match="at least 33 frames, one chunk, got 20"):
        encode_clip(helios, np.zeros((20, 64, 64, 3), np.uint8), 64, 64)
    with pytest.raises(ValueError, match="whole chunks"):
        with_control(helios, file, z[:, :, :8])
    with pytest.raises(ValueError, match="NaN"):
        with_control(helios, file, z * float("nan"))
    with pytest.raises(ValueError, match="no control adapter of Helios"):
        with_control(helios, tiny_lora(tmp_path, helios), z)
    with pytest.raises(ValueError, match="control.pt"):
        with_control(helios, tmp_path / "control.pt", z) if (tmp_path / "control.pt").write_bytes(b"x") else None
    with pytest.raises(ValueError, match="trained for another model"):
        wide = type(CONFIG)(num_attention_heads=2, attention_head_dim=40, rope_dim=(16, 12, 12), num_layers=1)
        with_control(helios, adapter(tmp_path, wide, name="wide.safetensors"), z)
    with pytest.raises(ValueError, match="control policy 'loud'"):
        with_control(helios, file, z, policy="loud")
    with pytest.raises(ValueError, match="control strength nan"):
        with_control(helios, file, z, strength=float("nan"))
    with pytest.raises(ValueError, match="the last not before"):
        with_control(helios, file, z, first=3, last=1)
    with pytest.raises(ValueError, match="its latents are of 16x16"):
        sampled(with_control(helios, file, latents(helios, size=128)))
    with pytest.raises(ValueError, match="a batch of 3 for 2 videos"):
        sampled(with_control(helios, file, latents(helios, batch=3)), batch=2)
