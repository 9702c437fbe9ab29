"""The tokenizer inside a GGUF file: llama.cpp's lists of pieces as the sentencepiece model they were made from.

A checkpoint whose tokenizer is no sentencepiece model has its files in the values, as `helios convert` writes them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from . import gguf
from .names import SPIECE

LISTS = "tokenizer.ggml."
FILES = "helios.tokenizer."  # prefix of the values that hold a tokenizer's text files
UNKNOWN, BYTE = 2, 6  # kinds of pieces, the same numbers in llama.cpp and in sentencepiece


class Inside(NamedTuple):
    """A tokenizer in a GGUF file. key: its file's name, as among the tensors of a safetensors file."""

    file: Path
    key: str

    def read(self) -> bytes:
        """The bytes of that file. ValueError where the file's lists do not make one."""
        values = gguf.read(self.file).values
        if self.key == SPIECE:
            return spiece(values, self.file)
        return str(values[FILES + self.key]).encode()

    def files(self) -> dict[str, bytes]:
        """All of the tokenizer's files by name."""
        values = gguf.read(self.file).values
        found = {key.removeprefix(FILES): str(text).encode() for key, text in values.items() if key.startswith(FILES)}
        return found | ({"spiece.model": spiece(values, self.file)} if f"{LISTS}tokens" in values else {})


def find(path: Path) -> Inside | None:
    """The tokenizer of a GGUF file, if it has one."""
    values = gguf.read(path).values
    if f"{FILES}tokenizer.json" in values:
        return Inside(path, "tokenizer.json")
    return Inside(path, SPIECE) if f"{LISTS}tokens" in values else None


def spiece(values: dict, path: Path) -> bytes:
    """A sentencepiece unigram model of llama.cpp's lists. ValueError where they are another kind's or do not fit."""
    if values.get(f"{LISTS}model") != "t5":
        raise ValueError(f"{path}: its tokenizer is of the kind {values.get(f'{LISTS}model')}; UMT5's is t5")
    tokens, scores, kinds = (values.get(LISTS + name) for name in ("tokens", "scores", "token_type"))
    try:
        rows = list(zip(tokens, scores, kinds, strict=True))
        pieces = [
            field(1, field(1, text.encode()) + tag(2, 5) + struct.pack("<f", score) + number(3, kind))
            for text, score, kind in rows
        ]
        unknown = values.get(f"{LISTS}unknown_token_id", kinds.index(UNKNOWN) if UNKNOWN in kinds else 0)
        end, table = values.get(f"{LISTS}eos_token_id", 1), values.get(f"{LISTS}precompiled_charsmap", ())
        trainer = number(3, 1) + number(35, BYTE in kinds) + number(40, unknown) + number(42, end)
        prefix, merge = (values.get(LISTS + name, True) for name in ("add_space_prefix", "remove_extra_whitespaces"))
        normaliser = field(2, bytes(n & 255 for n in table)) + number(3, prefix) + number(4, merge)
    except (AttributeError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise ValueError(
            f"{path}: the lists of its tokenizer do not fit together ({error}); take another file"
        ) from error
    return b"".join(pieces) + field(2, trainer) + field(3, normaliser)


def tag(index: int, wire: int) -> bytes:
    """A protobuf field's number and kind."""
    return varint(index << 3 | wire)


def field(index: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    return tag(index, 2) + varint(len(data)) + data


def number(index: int, value: int) -> bytes:
    """A protobuf field of a whole number, none of which is below zero here. ValueError for one that is."""
    return tag(index, 0) + varint(int(value))


def varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first. ValueError for a number below zero."""
    if value < 0:
        raise ValueError(f"a number of {value}")
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)
