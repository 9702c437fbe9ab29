"""The text encoder against diffusers, on a tiny random UMT5 and a tokenizer trained here: V1, M2 and parity."""

import json
import shutil
import socket

import pytest
import torch
from helios_video.helios_core.backends.torch import text as loading
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import load_file, save_file
from support.text import PROMPTS, Padded, make_checkpoint


def load_text_encoder(folder, **options):
    return Padded(loading.load_text_encoder(open_part(folder, "text_encoder"), **options))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_text_encoder(checkpoint[0])


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A checkpoint whose weights a test may change: (folder, weights, save)."""
    shutil.copytree(checkpoint[0], tmp_path / "copy")
    file = tmp_path / "copy" / "text_encoder" / "model.safetensors"
    return tmp_path / "copy", load_file(file), lambda weights: save_file(weights, file)


def test_parity_with_diffusers(checkpoint, encoder):
    from diffusers import HeliosPyramidPipeline
    from transformers import AutoTokenizer

    class Parts:
        text_encoder, tokenizer = checkpoint[1], AutoTokenizer.from_pretrained(checkpoint[0] / "tokenizer")

    with torch.no_grad():
        want, mask = HeliosPyramidPipeline._get_t5_prompt_embeds(
            Parts, PROMPTS, max_sequence_length=512, device="cpu", dtype=torch.float32
        )
    got = encoder(PROMPTS)
    assert got.shape == (3, 512, 32) and got.dtype == torch.float32
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    assert (got[~mask] == 0).all() and mask.sum(1).tolist()[1] == 1


def test_padding_is_exactly_zero_and_batches_do_not_matter(encoder):
    together = encoder(PROMPTS)
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = encoder(prompt)
        assert torch.allclose(alone[0], row, atol=1e-5)
        length = int(alone[0].abs().sum(1).count_nonzero())
        assert (row[length:] == 0).all() and (row[:length].abs().sum(1) > 0).all()


def test_v1_tied_embedding(encoder):
    model = encoder.model
    assert model.encoder.embed_tokens.weight.data_ptr() == model.shared.weight.data_ptr()
    assert model.shared.weight.abs().sum() > 0
    red, blue = encoder(["a red circle", "a blue square"])
    assert (red - blue).abs().max() > 0.1


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "both"])
def test_v1_the_other_names_of_the_embedding(copy, encoder, name):
    folder, weights, save = copy
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    if name != "both":
        del weights["shared.weight"]
    save(weights)
    assert torch.equal(load_text_encoder(folder)(PROMPTS), encoder(PROMPTS))


def test_v1_two_different_embeddings_are_refused(copy):
    folder, weights, save = copy
    save(weights | {"encoder.embed_tokens.weight": weights["shared.weight"] + 1})
    with pytest.raises(ValueError, match=r"shared\.weight and encoder\.embed_tokens\.weight differ"):
        load_text_encoder(folder)


def test_m2_missing_unexpected_and_misshapen_keys_are_named(copy):
    folder, weights, save = copy
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    weights["decoder.lm_head.weight"] = torch.zeros(2)
    weights["encoder.final_layer_norm.weight"] = torch.zeros(3)
    save(weights)
    with pytest.raises(ValueError) as error:
        load_text_encoder(folder)
    for name in ("block.1.layer.0.SelfAttention.q.weight", "decoder.lm_head.weight", "final_layer_norm.weight"):
        assert name in str(error.value)


def test_m2_no_embedding_at_all(copy):
    folder, weights, save = copy
    del weights["shared.weight"]
    save(weights)
    with pytest.raises(ValueError, match=r"missing: shared\.weight"):
        load_text_encoder(folder)


def test_m2_every_tensor_is_the_file_s(checkpoint, encoder):
    stored = load_file(checkpoint[0] / "text_encoder" / "model.safetensors")
    loaded = encoder.model.state_dict()
    assert set(stored) | {"encoder.embed_tokens.weight"} == set(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())
    assert not any(value.is_meta for value in loaded.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(checkpoint, encoder, dtype):
    half = load_text_encoder(checkpoint[0], dtype=dtype)
    got, want = half(PROMPTS), encoder(PROMPTS)
    assert got.dtype == torch.float32 and (got - want).norm() / want.norm() < 0.05
    assert half.model.encoder.block[0].layer[0].SelfAttention.q.weight.dtype == dtype
    feed_forward = half.model.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype
    assert feed_forward == (torch.float32 if dtype == torch.float16 else dtype)


def test_the_tokenizer_file_is_read_as_it_stands(copy, encoder):
    """transformers 5 drops the normalizer when the folder names a T5 tokenizer."""
    folder, *_ = copy
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5TokenizerFast"}))
    assert torch.equal(load_text_encoder(folder)("A RED CIRCLE"), encoder("a red circle"))


def test_long_prompts_are_cut_with_a_warning(checkpoint, caplog):
    short = load_text_encoder(checkpoint[0], max_length=16)
    assert short("moving left").shape == (1, 16, 32) and not caplog.records
    assert short("a red circle " * 40).shape == (1, 16, 32)
    assert "fills all 16 tokens" in caplog.text


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("tokenizer/tokenizer.json", "tokenizer.json or spiece.model"),
        ("text_encoder/config.json", "config.json is missing"),
        ("text_encoder/model.safetensors", "no safetensors file"),
    ],
)
def test_missing_files_are_named(copy, file, says):
    (copy[0] / file).unlink()
    with pytest.raises(ValueError, match=says):
        load_text_encoder(copy[0])


def test_truncated_weights_are_refused(copy):
    file = copy[0] / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        load_text_encoder(copy[0])


def test_loading_and_encoding_use_no_network(checkpoint, monkeypatch):
    def refuse(*_):
        raise AssertionError("network used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_text_encoder(checkpoint[0])("a red circle").abs().sum() > 0
