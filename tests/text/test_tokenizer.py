"""Tokenizers from a sentencepiece model, a tokenizer.json and a text encoder's file, against sentencepiece."""

import io
import json
import random

import pytest
import torch
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.text.tokenizer import from_spiece, load_tokenizer
from safetensors.torch import save_file
from support.parts import TEXT, WORDS, bytes_tensor, make_spiece, message

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
MARKS = ["a </s> b", "</s>", "x<unk><pad>", "a <0x41> b", "<0x4", "a</s", "\u2603 snow <0xE2>"]
TEXTS += [*MARKS, "<extr", "ared redx"]


@pytest.fixture(scope="module")
def spiece():
    return make_spiece()


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
@pytest.mark.parametrize("merge_spaces", [True, False])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_sentencepiece_models_tokenise_as_in_sentencepiece(rule, merge_spaces, byte_fallback):
    rules = dict(normalization_rule_name=rule, remove_extra_whitespaces=merge_spaces, byte_fallback=byte_fallback)
    model, oracle = trained(vocab_size=350 if byte_fallback else 70, **rules)
    ours = from_spiece(model, "x")
    assert [ours.encode(text).ids for text in TEXTS] == oracle.encode(TEXTS)


def trained(vocab_size=70, user_defined_symbols=("<extra>", "re"), **options):
    """Bytes of a model that sentencepiece trained, and sentencepiece with it."""
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:40]), model_writer=model, vocab_size=vocab_size, hard_vocab_limit=False,
        num_threads=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        user_defined_symbols=list(user_defined_symbols), **options,
    )  # fmt: skip
    return model.getvalue(), spm.SentencePieceProcessor(model_proto=model.getvalue(), add_eos=True)


@pytest.mark.parametrize("merge_spaces", [True, False])
@pytest.mark.parametrize("prefix,suffix", [(True, True), (False, False), (False, True)])
def test_spaces_that_are_not_added_or_go_to_the_word_before(prefix, suffix, merge_spaces):
    options = dict(add_dummy_prefix=prefix, treat_whitespace_as_suffix=suffix)
    model, oracle = trained(**options, remove_extra_whitespaces=merge_spaces)
    ours = from_spiece(model, "x")
    assert [ours.encode(text).ids for text in TEXTS] == oracle.encode(TEXTS)


def test_symbols_are_found_before_normalisation_changes_them():
    """A line break and letters that it would replace; symbols of spaces that it would merge are refused."""
    model, oracle = trained(user_defined_symbols=["\n", "\n\n", "\uff21", "\ufb01ne"])
    ours, texts = from_spiece(model, "x"), [*TEXTS, "red\ncircle", "a\n\nb", "\n", "\uff21\uff22 \uff21"]
    assert [ours.encode(text).ids for text in texts] == oracle.encode(texts)
    with pytest.raises(ValueError, match="x: .* removes the spaces of its own symbols"):
        from_spiece(trained(user_defined_symbols=["  "])[0], "x")


def test_a_model_without_escaped_spaces_is_refused(spiece):
    with pytest.raises(ValueError, match="x: .* does not escape spaces"):
        from_spiece(spiece + message((3, message((5, 0)))), "x")


def fused(row, unknown=2):
    """Without an unknown character after another: the model takes a run of them as one, up to where a text is split."""
    return [token for i, token in enumerate(row) if token != unknown or row[i - 1 : i] != [unknown]]


def test_a_written_end_token_is_text_whatever_the_tokenizer_came_in(spiece, tmp_path):
    """A T5 tokenizer.json has </s> among its special tokens, and in its vocabulary."""
    from tokenizers import Tokenizer

    from_spiece(spiece, "x").save(str(tmp_path / "ours.json"))
    said = json.loads((tmp_path / "ours.json").read_text())
    said["model"]["vocab"] = [[text.strip(" "), score] for text, score in said["model"]["vocab"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.add_special_tokens(["</s>", "<pad>", "<unk>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert 1 in theirs.encode("a </s> b").ids[:-1]
    rows = load_tokenizer(tmp_path, 64)(TEXTS)
    wanted = from_spiece(spiece, "x").encode_batch(TEXTS)
    assert [fused(row) for row in rows] == [fused(row.ids) for row in wanted]
    assert all(row[-1] == 1 and not {0, 1} & set(row[:-1]) for row in rows)


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


@pytest.mark.parametrize("text", ["{}", "[", "", '{"model": {"type": "Unigram", "vocab": 3}}'])
def test_a_broken_tokenizer_json_inside_a_file_is_named(text, tmp_path):
    umt5 = {name: torch.zeros(shape) for name, shape in inferred.umt5(TEXT).items()}
    umt5 |= {"shared.weight": torch.zeros(60, 16), "tokenizer.tokenizer.json": bytes_tensor(text.encode())}
    save_file(umt5, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors"):
        load_tokenizer(open_part(tmp_path / "x.safetensors", "text_encoder").tokenizer, 8)
