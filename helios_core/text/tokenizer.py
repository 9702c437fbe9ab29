"""The text encoder's tokenizer: from tokenizer.json, or from a sentencepiece model, of its own or inside the weights.

A sentencepiece model is a protobuf message. Of it a unigram tokenizer needs the pieces with their scores, and the
table that normalises characters; both are read here, so that neither sentencepiece nor protobuf is a dependency.
Field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import check_tokenizer
from ..disk import reading

Tokenize = Callable[[list[str]], list[list[int]]]

UNIGRAM = 1
NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5  # kinds of pieces
SPACE = "\u2581"
PRIVATE = 0xF0000  # the first of 65,534 characters that no text has
MARKS = ("<pad>", "</s>", "<unk>", "<s>")  # what a T5 tokenizer.json finds in a text where sentencepiece does not


class Trainer(NamedTuple):
    """How a model was made. byte_fallback: unknown characters become pieces of their bytes. suffix: spaces go to the
    word before."""

    kind: int = UNIGRAM
    unknown: int = 0
    end: int = 2
    byte_fallback: bool = False
    suffix: bool = False


class Normaliser(NamedTuple):
    """What is done to a text first. prefix: a space is added. merge: spaces at the ends go, others become one."""

    charsmap: bytes = b""
    prefix: bool = True
    merge: bool = True
    escape: bool = True


def load_tokenizer(place, max_length: int, words: int = 0) -> Tokenize:
    """Prompts -> token ids per prompt, end token included, at most max_length.

    place: the tokenizer's folder, or what `sources` found inside a weights file (its bytes are read). words: that the
    text encoder knows; 0: not checked. ValueError if there is none, or none that can be read.
    """
    check_tokenizer(place)
    where = _where(place)
    with reading(where, "tokenizer"):
        tokenizer = _open(place)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
    return lambda prompts: [_checked(row.ids, words, where) for row in tokenizer.encode_batch(prompts)]


def _where(place) -> Path:
    if not isinstance(place, Path):
        return place.file
    return next(place / name for name in ("tokenizer.json", "spiece.model") if (place / name).is_file())


def _checked(ids: list[int], words: int, where: Path) -> list[int]:
    """ValueError for a token that the text encoder has no row for: on a GPU that would end the whole process."""
    if words and ids and max(ids) >= words:
        raise ValueError(f"{where} gives token {max(ids)}, the text encoder has {words}; take both from one checkpoint")
    return ids


def _open(place):
    from tokenizers import Tokenizer

    if not isinstance(place, Path):
        text = place.key.endswith(".json")
        return from_json(place.read(), str(place.file)) if text else from_spiece(place.read(), str(place.file))
    if (place / "tokenizer.json").is_file():
        # As it stands: transformers 5 rebuilds a T5 tokenizer without the normalizer of its file.
        return as_text(Tokenizer.from_file(str(place / "tokenizer.json")))
    return from_spiece((place / "spiece.model").read_bytes(), str(place / "spiece.model"))


def from_json(data: bytes, path: str):
    """A tokenizers.Tokenizer of a tokenizer.json. ValueError for a broken one."""
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise ValueError(f"{path}: the tokenizer.json in it is broken ({error}); download the file again") from error
    return as_text(found)


def as_text(tokenizer):
    """The tokenizer, for which </s> and the like in a prompt are text, as in sentencepiece."""
    tokenizer.encode_special_tokens = True
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return split_within(tokenizer, [rf"{re.escape(x[0])}(?={re.escape(x[1:])})" for x in added if x in MARKS])


def split_within(tokenizer, patterns: list[str]):
    """The tokenizer, which takes no piece that goes on beyond a match of a pattern."""
    from tokenizers import Regex, pre_tokenizers

    if patterns:
        split = pre_tokenizers.Split(Regex("|".join(patterns)), "merged_with_previous")
        own = tokenizer.pre_tokenizer
        tokenizer.pre_tokenizer = split if own is None else pre_tokenizers.Sequence([own, split])
    return tokenizer


def from_spiece(data: bytes, path: str):
    """A tokenizers.Tokenizer of a sentencepiece unigram model, which ends every text with its end token.

    ValueError for a broken model, one of another kind, and one that works in a way that is not read here.
    """
    from tokenizers import Tokenizer, models, normalizers, processors

    try:
        pieces, trainer, normaliser = read_spiece(data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{path}: the sentencepiece model in it is broken ({error})") from error
    if trainer.kind != UNIGRAM:
        raise ValueError(f"{path}: a sentencepiece model of type {trainer.kind}; UMT5's is a unigram model")
    if not normaliser.escape:
        raise ValueError(f"{path}: a sentencepiece model that does not escape spaces, which is not read; UMT5's does")
    steps = normalisation(normaliser)
    kept = protected(pieces, normalizers.Sequence(steps), path)
    entries = vocabulary([(kept.get(text, text), score, kind) for text, score, kind in pieces])
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=trainer.unknown, byte_fallback=trainer.byte_fallback))
    first = [normalizers.Replace(text, kept[text]) for text in sorted(kept, key=len, reverse=True)]
    tokenizer.normalizer = normalizers.Sequence([*first, *steps, *spaces(normaliser.prefix, trainer.suffix)])
    end = (pieces[trainer.end][0], trainer.end)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return split_within(tokenizer, ["<(?=0x[0-9A-F]{2}>)"] if trainer.byte_fallback else [])


def vocabulary(pieces: list[tuple]) -> list[tuple[str, float]]:
    """Of a unigram model, as sentencepiece takes it: symbols that the user defined have a score of their own, and what
    stands for no text (</s>, unused pieces) begins with a space, which no normalised text has."""
    best = max((score for _, score, kind in pieces if kind == NORMAL), default=0.0)
    forced = ((text, len(text.encode()) * best - 0.1 if kind == USER else score, kind) for text, score, kind in pieces)
    return [(f" {text}" if kind in (UNKNOWN, CONTROL, UNUSED) else text, score) for text, score, kind in forced]


def normalisation(normaliser: Normaliser) -> list:
    """Characters that stand for others, and runs of spaces."""
    from tokenizers import Regex, normalizers

    steps = [normalizers.Precompiled(normaliser.charsmap)] if normaliser.charsmap else []
    if normaliser.merge:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return steps


def spaces(prefix: bool, suffix: bool) -> list:
    """Spaces as pieces have them, and the one that is added before a text or after it."""
    from tokenizers import Regex, normalizers

    added = normalizers.Replace(Regex(r"(?<=[\s\S])\z"), SPACE) if suffix else normalizers.Prepend(SPACE)
    return [*([added] if prefix else []), normalizers.Replace(" ", SPACE)]


def protected(pieces: list[tuple], normalizer, path: str) -> dict[str, str]:
    """Symbols of the user that normalisation would change -> a private character that stands for each.

    Sentencepiece finds such symbols before it normalises. ValueError for those of spaces.
    """
    texts = [text.replace(SPACE, " ") for text, _, kind in pieces if kind == USER]
    changed = [text for text in texts if normalizer.normalize_str(f"a{text}a") != f"a{text}a"]
    if lost := [text for text in changed if " " in text]:
        raise ValueError(f"{path}: a sentencepiece model that removes the spaces of its own symbols {lost[:4]}")
    return {text: chr(PRIVATE + i) for i, text in enumerate(changed)}


def read_spiece(data: bytes) -> tuple:
    """Pieces (text, score, kind), Trainer, Normaliser. ValueError for a broken one."""
    pieces, trainer, normaliser = [], Trainer(), Normaliser()
    for number, value in fields(data):
        if number == 1:
            piece = dict(fields(value))
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append((piece[1].decode(), score, piece.get(3, NORMAL)))
        elif number == 2:
            given = dict(fields(value))
            trainer = Trainer(*(given.get(number, old) for number, old in zip((3, 40, 42, 35, 24), trainer)))
        elif number == 3:
            given = dict(fields(value))
            normaliser = Normaliser(*(given.get(number, old) for number, old in zip((2, 3, 4, 5), normaliser)))
    # A table: the length of its index, the index, and texts that it points to.
    table = normaliser.charsmap
    table[4 + int.from_bytes(table[:4], "little") :].decode()
    if not pieces or max(trainer.unknown, trainer.end) >= len(pieces):
        raise ValueError("it has no pieces, or no unknown or end token")
    return pieces, trainer._replace(byte_fallback=bool(trainer.byte_fallback)), normaliser


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field number and value of each field of a protobuf message: an integer, or bytes. ValueError for a broken one."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
        elif wire in (1, 5):
            at, value = at + (8 if wire == 1 else 4), data[at : at + (8 if wire == 1 else 4)]
        elif wire == 2:
            length, at = varint(data, at)
            at, value = at + length, data[at : at + length]
        else:
            raise ValueError(f"field of unknown kind {wire}")
        if at > len(data):
            raise ValueError("it is cut short")
        yield number, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
