"""GGUF files: header, values, and where tensors lie, checked before anything is mapped. No framework, no gguf package.

A GGUF file is the magic, a version, two counts, the values by key, a record per tensor (name, dimensions from the
innermost outwards, type, offset), and then the data. A quantised row is a run of blocks, each of so many columns in so
many bytes. Source: docs/gguf.md of ggml-org/ggml; the orig_shape values are ComfyUI-GGUF's, for more dimensions than 4.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

MAGIC = b"GGUF"
EXTRA = "the gguf package: pip install 'helios-video[gguf]'"  # writes files, and widens blocks for MLX
VERSIONS = (2, 3)
# Type -> columns and bytes of a block. The numbers of all types, those that are not read for their names.
BLOCKS = {
    **{"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "IQ4_NL": (32, 18)},
    **{"Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)},
    "IQ4_XS": (256, 136),
}
PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8}
TYPES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K"},
    **{12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S"},
    **{20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"},
    **{29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"},
}
READ = (*BLOCKS, *PLAIN)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
ALIGNMENT, ORIG_SHAPE, ARCHITECTURE = "general.alignment", "comfy.gguf.orig_shape.", "general.architecture"
# What files of a transformer or of a text encoder call themselves; None is stable-diffusion.cpp's way.
ARCHITECTURES = ("wan", "helios", "pig", "cow", "t5", "t5encoder", None)
MOST_DIMENSIONS = 8
# llama.cpp's names of a text encoder's tensors, by the part after the block's number.
T5 = {
    **{f"attn_{x}": f"layer.0.SelfAttention.{x}" for x in "qkvo"},
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    **{"ffn_gate": "layer.1.DenseReluDense.wi_0", "ffn_up": "layer.1.DenseReluDense.wi_1"},
    **{"ffn_down": "layer.1.DenseReluDense.wo", "ffn_norm": "layer.1.layer_norm"},
}
T5_WHOLE = {"token_embd.weight": "shared.weight", "enc.output_norm.weight": "encoder.final_layer_norm.weight"}


class GGUFTensor(NamedTuple):
    """A tensor's type by name, its shape from the outermost dimension on, and where its bytes begin in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class GGUFContents(NamedTuple):
    """values: key -> number, text or tuple. tensors: by Hugging Face's names for a text encoder of llama.cpp's."""

    values: dict[str, object]
    tensors: dict[str, GGUFTensor]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as one."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; its columns are whole blocks."""
    columns, size = BLOCKS.get(dtype) or (1, PLAIN[dtype])
    return math.prod(shape) // columns * size


def row_bytes(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor's blocks as bytes: rows of whole blocks, or all in one where rows share blocks."""
    columns, size = BLOCKS[dtype]
    if shape and shape[-1] % columns == 0:
        return (*shape[:-1], shape[-1] // columns * size)
    return (nbytes(dtype, shape),)


def t5_name(name: str) -> str:
    """A text encoder's tensor by llama.cpp's name -> Hugging Face's; any other name as it is."""
    if found := re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name):
        return f"encoder.block.{found[1]}.{T5.get(found[2], found[2])}.weight"
    return T5_WHOLE.get(name, name)


def t5_gguf_name(name: str) -> str:
    """The way back, for writing."""
    turned = {new: old for old, new in T5.items()}
    if (found := re.fullmatch(r"encoder\.block\.(\d+)\.(.+)\.weight", name)) and found[2] in turned:
        return f"enc.blk.{found[1]}.{turned[found[2]]}.weight"
    return {new: old for old, new in T5_WHOLE.items()}.get(name, name)


def read(path: Path) -> GGUFContents:
    """Everything but the data. ValueError for a file that is cut short, inconsistent, of another version or with types
    that are not read."""
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, _: int) -> GGUFContents:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(path, data)
        tensor_count, value_count = reader.begin()
        values = dict(reader.each(value_count, reader.pair, "value"))
        records = dict(reader.each(tensor_count, reader.record, "tensor"))
        end = reader.at
    check_architecture(path, values)
    tensors = _placed(path, values, records, end, size)
    if any(name.startswith("enc.blk.") for name in tensors):  # a decoder may lie beside the encoder
        tensors = {t5_name(name): t for name, t in tensors.items() if not name.startswith(("dec.", "output."))}
    return GGUFContents(values, tensors)


def check_architecture(path: Path, values: dict) -> None:
    """ValueError for a file that says it is of another model."""
    said = values.get(ARCHITECTURE)
    if said not in ARCHITECTURES:
        known = ", ".join(name for name in ARCHITECTURES if name)
        raise ValueError(f"{path} says it is of the architecture {said}; read are {known}, or none at all")


class Reader:
    """Reads a header from the front. ValueError where the file ends first, or holds what cannot be."""

    def __init__(self, path: Path, data):
        self.path, self.data, self.at = path, data, 0

    def broken(self, why: str) -> ValueError:
        """The error to raise."""
        return ValueError(f"{self.path}: the GGUF header is broken ({why}, at byte {self.at}); download the file again")

    def take(self, count: int) -> bytes:
        """The next bytes. ValueError where the file has fewer."""
        if count > len(self.data) - self.at:
            raise ValueError(
                f"{self.path} is cut short, {len(self.data)} bytes end inside its header; download it again"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str):
        """The next number, little-endian, of struct's format."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        """The next text: its length, then UTF-8."""
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise self.broken("a text is not UTF-8") from error

    def begin(self) -> tuple[int, int]:
        """The counts of tensors and of values. ValueError for a version that is not read."""
        self.take(len(MAGIC))
        version = self.number("I")
        if version not in VERSIONS:
            other = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            why = "in big-endian order" if other else f"version {version}"
            raise ValueError(f"{self.path} is GGUF {why}; read are versions 2 and 3, little-endian")
        return self.number("Q"), self.number("Q")

    def each(self, count: int, one, what: str):
        """`count` results of `one`, each a name and something; none twice."""
        if count > len(self.data) // 9:  # a record has that many bytes at the least
            raise self.broken(f"{count} {what}s in a file of {len(self.data)} bytes, or the file is cut short")
        seen = set()
        for _ in range(count):
            name, found = one()
            if name in seen:
                raise self.broken(f"{what} {name} is there twice")
            seen.add(name)
            yield name, found

    def pair(self) -> tuple[str, object]:
        """A key and its value."""
        return self.text(), self.value(self.number("I"))

    def value(self, kind: int):
        """A value of a kind by its number: number, text, or a tuple of either."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            raise self.broken(f"a value of unknown kind {kind}")
        kind, count = self.number("I"), self.number("Q")
        if count > len(self.data) - self.at:
            raise self.broken(f"a list of {count} entries")
        if kind in SCALARS:
            form = f"<{count}{SCALARS[kind]}"
            return struct.unpack(form, self.take(struct.calcsize(form)))
        if kind != TEXT:
            raise self.broken(f"a list of kind {kind}")
        return tuple(self.text() for _ in range(count))

    def record(self) -> tuple[str, GGUFTensor]:
        """A tensor's name, type and shape; start: its offset in the data. ValueError for a type that is not read."""
        name, rank = self.text(), self.number("I")
        if rank > MOST_DIMENSIONS:
            raise self.broken(f"tensor {name} with {rank} dimensions")
        shape = tuple(self.number("Q") for _ in range(rank))[::-1]
        number, start = self.number("I"), self.number("Q")
        dtype = TYPES.get(number, f"number {number}")
        if dtype not in READ:
            raise ValueError(f"{self.path}: tensor {name} is of the type {dtype}; read are {', '.join(READ)}")
        if shape and dtype in BLOCKS and shape[-1] % BLOCKS[dtype][0]:
            raise self.broken(f"tensor {name} has {shape[-1]} columns, which are no blocks of {dtype}")
        return name, GGUFTensor(dtype, shape, start)


def _placed(path: Path, values: dict, records: dict[str, GGUFTensor], end: int, size: int) -> dict[str, GGUFTensor]:
    """The records with their places in the file and their own shapes. ValueError where they overlap or do not fit."""
    align = values.get(ALIGNMENT, 32)
    if not isinstance(align, int) or align < 1 or align & (align - 1):
        raise ValueError(f"{path}: {ALIGNMENT} is {align!r}, not a power of two; download the file again")
    begin, last = -(-end // align) * align, 0
    for name, (dtype, shape, start) in sorted(records.items(), key=lambda item: item[1].start):
        if start % align or start < last:
            raise ValueError(f"{path}: tensor {name} overlaps another or lies askew; download the file again")
        last = start + nbytes(dtype, shape)
        if begin + last > size:
            raise ValueError(
                f"{path} is cut short: tensor {name} ends at byte {begin + last}, the file at {size}; download it again"
            )
    return {name: GGUFTensor(dtype, _shape(path, values, name, shape), begin + start) for name, (dtype, shape, start) in
            records.items()}  # fmt: skip


def _shape(path: Path, values: dict, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a tensor had before it was stored in fewer dimensions."""
    said = values.get(ORIG_SHAPE + name)
    if said is None:
        return shape
    if not isinstance(said, tuple) or not all(isinstance(n, int) and n > 0 for n in said):
        raise ValueError(f"{path}: {ORIG_SHAPE}{name} is {said!r}, no shape; download the file again")
    if math.prod(said) != math.prod(shape):
        raise ValueError(f"{path}: {ORIG_SHAPE}{name} is {said}, which does not hold the numbers of {shape}")
    return said
