"""Tokenizers from a sentencepiece model, a tokenizer.json and a text encoder's file, against sentencepiece."""

import io
import random

import pytest
import torch
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.text.tokenizer import from_spiece, load_tokenizer
from safetensors.torch import save_file
from support.parts import TEXT, WORDS, bytes_tensor, make_spiece

TEXTS = [" ".join(random.Random(i).choice(WORDS) for _ in range(9)) for i in range(40)]
TEXTS += [
    "",
    " ",
    "  a  red   circle ",
    "\uff21\uff42 \ufb01ne",
    "x\u00a0y\u3000z",
    "\U0001f600\U0001f600 zzz",
    "tab\tnew\nline",
]
TEXTS += ["a <extra> b<extra>c", "e\u0301\u200b", "\u2581a \u2581 b", "don't 123123"]


@pytest.fixture(scope="module")
def spiece():
    return make_spiece()


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
@pytest.mark.parametrize("merge_spaces", [True, False])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_sentencepiece_models_tokenise_as_in_sentencepiece(rule, merge_spaces, byte_fallback):
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:40]), model_writer=model, vocab_size=350 if byte_fallback else 70,
        byte_fallback=byte_fallback, hard_vocab_limit=False, num_threads=1,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, user_defined_symbols=["<extra>"],
        normalization_rule_name=rule, remove_extra_whitespaces=merge_spaces,
    )  # fmt: skip
    oracle = spm.SentencePieceProcessor(model_proto=model.getvalue(), add_eos=True)
    ours = from_spiece(model.getvalue(), "x")
    assert [ours.encode(text).ids for text in TEXTS] == oracle.encode(TEXTS)


def test_the_three_places_of_a_tokenizer_agree(spiece, tmp_path):
    (tmp_path / "spiece").mkdir()
    (tmp_path / "spiece" / "spiece.model").write_bytes(spiece)
    (tmp_path / "json").mkdir()
    from_spiece(spiece, "x").save(str(tmp_path / "json" / "tokenizer.json"))
    umt5 = {name: torch.zeros(shape) for name, shape in inferred.umt5(TEXT).items()} | {
        "shared.weight": torch.zeros(60, 16)
    }
    save_file(umt5 | {"spiece_model": bytes_tensor(spiece)}, tmp_path / "x.safetensors")
    embedded = open_part(tmp_path / "x.safetensors", "text_encoder").tokenizer
    rows = [load_tokenizer(p, 8)(TEXTS) for p in (tmp_path / "spiece", tmp_path / "json", embedded)]
    assert rows[0] == rows[1] == rows[2] and max(map(len, rows[0])) == 8


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_broken_sentencepiece_models_are_named(spiece, cut):
    with pytest.raises(ValueError, match="x: .*sentencepiece"):
        from_spiece(b"" if cut == 1 else spiece[:-cut] + b"\xff" * (cut - 10), "x")
