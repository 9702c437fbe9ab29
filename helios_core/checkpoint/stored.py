"""A tensor in a file, with the factors of a quantised one or what ComfyUI's files say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from . import gguf, headers, precision

GROUP = "convrot_groupsize"  # columns that are rotated together


class Stored(NamedTuple):
    """A tensor in a file: its key there, safetensors dtype, shape, where its bytes begin; and the stored factors of a
    quantised one (backends/torch/quant.py), or its marks where it is one of ComfyUI's (marks.py). The shape is the
    weight's: four bits keep two of a row in each byte, a type of gguf.BLOCKS some columns in each block."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    scale: Stored | None = None
    zero: Stored | None = None
    marks: Marks | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape on disk: of four bits with half the columns, two to a byte; of GGUF's blocks their bytes."""
        if self.in_gguf:
            return gguf.row_bytes(self.dtype, self.shape)
        four = self.marks is not None and self.marks.four
        packed = self.zero is not None or (four and self.dtype != "F4")
        shape = self.filled
        return (shape[0], shape[1] // 2) if packed else shape

    @property
    def filled(self) -> tuple[int, ...]:
        """The weight's shape with what was added to it in the file."""
        return (self.marks.filled if self.marks else None) or self.shape

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return headers.nbytes("U8" if self.in_gguf else self.dtype, self.stored_shape)

    @property
    def whole(self) -> int:
        """Bytes on disk with all that belongs to it."""
        beside = self.marks.found.values() if self.marks else filter(None, (self.scale, self.zero))
        return self.nbytes + sum(part.nbytes for part in beside)

    @property
    def in_gguf(self) -> bool:
        """Whether it is quantised in GGUF's blocks, which hold factors and codes in one."""
        return self.dtype in gguf.BLOCKS

    @property
    def codes(self) -> Stored:
        """What the file holds, without the factors; four-bit floats as bytes."""
        if self.dtype == "F4":
            rows, columns = self.filled
            return self._replace(dtype="U8", shape=(rows, columns // 2), scale=None, zero=None, marks=None)
        dtype = "U8" if self.in_gguf else self.dtype
        return self._replace(dtype=dtype, shape=self.stored_shape, scale=None, zero=None, marks=None)

    @property
    def blocks(self) -> bool:
        """Whether it is more than codes and the factors here: `unpacked.unpack` then says what."""
        return self.marks is not None and self.marks.blocks

    @property
    def kept(self) -> str | None:
        """The form of `precision.QUANTISED`, or GGUF, that it has in memory, if its linear layer is kept as stored."""
        if self.in_gguf:
            return precision.GGUF
        if self.marks is not None:
            return self.marks.kept
        return next((form for form, dtype in precision.QUANTISED.items() if dtype == self.dtype), None)

    @property
    def form(self) -> str | None:
        """How it is quantised, for people; None if it is not."""
        if self.in_gguf:
            return self.dtype.lower()
        if self.marks is not None and not self.marks.old:
            return self.marks.label
        formats = {dtype: name for name, dtype in precision.QUANTISED.items()}
        return formats.get(self.dtype, self.dtype) if self.scale else None

    def read(self) -> bytes:
        """Its bytes; for small ones."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.nbytes)


class Marks(NamedTuple):
    """What is said of a layer. said: its JSON. parts: what lies beside the weight, by the name after the layer's.

    old: said by `scaled_fp8`, and not in so many words. four: two codes to a byte. blocks: it is more than codes and a
    factor of all or of a row. kept: the form of `precision.QUANTISED` that it has in memory, where its linear layer is
    kept; None: none. held: the bytes of that, with factors in float32. filled: the shape in the file, where rows or
    columns were added (padded.py).
    """

    format: str
    said: str
    parts: tuple[tuple[str, Stored], ...]
    old: bool = False
    four: bool = False
    blocks: bool = False
    kept: str | None = None
    held: int = 0
    filled: tuple[int, ...] | None = None

    @property
    def found(self) -> dict[str, Stored]:
        """The parts by name."""
        return dict(self.parts)

    def option(self, name: str, default):
        """Of the layer itself, or of its `params`."""
        said = json.loads(self.said)
        params = said.get("params")
        return said.get(name, params.get(name, default) if isinstance(params, dict) else default)

    @property
    def rotation(self) -> int:
        """Columns that are rotated together; 0: none are."""
        always = self.format in ("convrot_w4a4", "asym_w4a8_int8")
        return int(self.option(GROUP, 256)) if always or self.option("convrot", False) else 0

    @property
    def group(self) -> int:
        """Columns that share a factor, where the layer says how many."""
        return int(self.option("group_size", {"awq_w4a16": 64}.get(self.format, 16)))

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.format} (convrot)" if self.format == "int8_tensorwise" and self.rotation else self.format
