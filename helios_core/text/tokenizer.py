"""The text encoder's tokenizer: from tokenizer.json, or from a sentencepiece model, of its own or inside the weights.

A sentencepiece model is a protobuf message. Of it a unigram tokenizer needs the pieces with their scores, and the
table that normalises characters; both are read here, so that neither sentencepiece nor protobuf is a dependency.
Field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import check_tokenizer
from ..foreign import reading

Tokenize = Callable[[list[str]], list[list[int]]]

UNIGRAM = 1
NORMAL, USER = 1, 4  # kinds of pieces
SPACE = "\u2581"


class Trainer(NamedTuple):
    """How a model was made. byte_fallback: unknown characters become pieces of their bytes."""

    kind: int = UNIGRAM
    unknown: int = 0
    end: int = 2
    byte_fallback: bool = False


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
        return Tokenizer.from_buffer(place.read()) if text else from_spiece(place.read(), str(place.file))
    if (place / "tokenizer.json").is_file():
        # As it stands: transformers 5 rebuilds a T5 tokenizer without the normalizer of its file.
        return Tokenizer.from_file(str(place / "tokenizer.json"))
    return from_spiece((place / "spiece.model").read_bytes(), str(place / "spiece.model"))


def from_spiece(data: bytes, path: str):
    """A tokenizers.Tokenizer of a sentencepiece unigram model, which ends every text with its end token.

    ValueError for a broken model, or one of another kind.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, processors

    try:
        pieces, trainer, charsmap, whitespace = read_spiece(data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{path}: the sentencepiece model in it is broken ({error})") from error
    if trainer.kind != UNIGRAM:
        raise ValueError(f"{path}: a sentencepiece model of type {trainer.kind}; UMT5's is a unigram model")
    model = models.Unigram(scores(pieces), unk_id=trainer.unknown, byte_fallback=trainer.byte_fallback)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Precompiled(charsmap)] if charsmap else []
    if whitespace:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    end = (pieces[trainer.end][0], trainer.end)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return tokenizer


def scores(pieces: list[tuple]) -> list[tuple[str, float]]:
    """Vocabulary of a unigram model; symbols that the user defined always win, as in sentencepiece."""
    best = max((score for _, score, kind in pieces if kind == NORMAL), default=0.0)
    forced = ((text, len(text.encode()) * best - 0.1 if kind == USER else score) for text, score, kind in pieces)
    return list(forced)


def read_spiece(data: bytes) -> tuple:
    """Pieces (text, score, kind), Trainer, normalisation table, whether it merges spaces.

    ValueError for a broken one.
    """
    pieces, trainer, charsmap, whitespace = [], Trainer(), b"", True
    for number, value in fields(data):
        if number == 1:
            piece = dict(fields(value))
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append((piece[1].decode(), score, piece.get(3, NORMAL)))
        elif number == 2:
            given = dict(fields(value))
            trainer = Trainer(*(given.get(number, old) for number, old in zip((3, 40, 42, 35), trainer)))
        elif number == 3:
            normaliser = dict(fields(value))
            charsmap, whitespace = normaliser.get(2, b""), bool(normaliser.get(4, 1))
    # A table: the length of its index, the index, and texts that it points to.
    charsmap[4 + int.from_bytes(charsmap[:4], "little") :].decode()
    if not pieces or max(trainer.unknown, trainer.end) >= len(pieces):
        raise ValueError("it has no pieces, or no unknown or end token")
    return pieces, trainer._replace(byte_fallback=bool(trainer.byte_fallback)), charsmap, whitespace


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
