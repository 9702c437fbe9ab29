"""GGUF files that a checkpoint becomes, under the names and in the forms that ComfyUI-GGUF reads.

The transformer has ComfyUI's key names and the architecture wan, the text encoder llama.cpp's. Large matrices are in
blocks or as they are stored; all else is float32, because what is no linear layer is not widened there. A file says
what it is as our safetensors do, so that a folder comes back; a tokenizer's texts lie beside llama.cpp's lists.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import EMBEDDINGS, Source, Stored, gguf, gguf_tokenizer, names, numbers, precision
from ..devices import libraries
from ..disk import replacing
from ..text import fields
from . import gguf_quants
from .layouts import SPIECE, Contents, Output, Piece, read_chunks

LOG = logging.getLogger(__name__)

ALIGN = 32
DIMENSIONS = 4  # more are stored as so many
ARCHITECTURE = {"transformer": "wan", "text_encoder": "t5encoder"}
FALLBACK = "q8_0"  # for rows that are no blocks of 256
PLAIN = ("BF16", "F16")


@dataclass(frozen=True)
class GGUFOutput(Output):
    """One GGUF file to write. values: key -> text, number, truth, or a list of one kind, after the architecture."""

    architecture: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """progress: called with the bytes that each tensor added. ValueError for a file that is there already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path, overwrite=False) as part:
            self._write_header(part)
            with part.open("ab") as file:
                for piece in self.pieces:
                    file.write(bytes(-file.tell() % ALIGN))
                    for _, chunks in piece.data():
                        file.writelines(chunks)
                    progress(piece.size)
                file.write(bytes(-file.tell() % ALIGN))

    def _write_header(self, path: Path) -> None:
        package = gguf_quants.package()
        writer = package.GGUFWriter(path, self.architecture)
        writer.add_quantization_version(package.GGML_QUANT_VERSION)
        for key, value in self.values.items():
            {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}.get(
                type(value), writer.add_array
            )(key, value)
        for piece in self.pieces:
            ((name, (dtype, shape)),) = piece.layout.items()
            kind = package.GGMLQuantizationType[dtype]
            writer.add_tensor_info(name, shape, np.dtype(np.float32), piece.size, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()


def output(path: Path, contents: Contents, part: str, kind: str | None, metadata: dict[str, str]) -> GGUFOutput:
    """The file of one part. kind: what its matrices become; None leaves them as they are stored. metadata: what our
    own files say of themselves. ValueError for one that is quantised already."""
    source = contents.sources[part]
    if kind and source.quantised:
        raise ValueError(f"{source.path} is quantised already ({source.quantised}); quantise the original instead")
    rename = names.pull_request_name if part == "transformer" else gguf.t5_gguf_name
    double = EMBEDDINGS[1] if EMBEDDINGS[0] in source.tensors else None
    found = {rename(name): (name, stored) for name, stored in source.tensors.items() if name != double}
    pieces = [_piece(key, name, stored, kind) for key, (name, stored) in found.items()]
    _tell_fallback(path, pieces, kind)
    shapes = {
        f"{gguf.ORIG_SHAPE}{key}": list(stored.shape)
        for key, (_, stored) in found.items()
        if len(stored.shape) > DIMENSIONS
    }
    values = {"general.type": "model", **metadata, **shapes}
    if part == "text_encoder":
        values |= _t5_values(source) | _tokenizer_values(contents.tokenizer, path)
    return GGUFOutput(path, pieces, {}, ARCHITECTURE[part], values)


def _piece(key: str, name: str, stored: Stored, kind: str | None) -> Piece:
    """A tensor under its new name, in the type that it gets."""
    dtype = _type(name, stored, kind)
    shape = stored.shape
    if len(shape) > DIMENSIONS:
        shape = (shape[0], math.prod(shape[1 : 2 - DIMENSIONS]), *shape[2 - DIMENSIONS :])
    return Piece({key: (dtype, shape)}, lambda: iter([(key, _data(name, stored, dtype))]))


def _type(name: str, stored: Stored, kind: str | None) -> str:
    matrix = len(stored.shape) == 2 and name.endswith(".weight") and "relative_attention_bias" not in name
    large = matrix and (precision.is_quantised(name) or name in EMBEDDINGS or name.startswith("encoder.block."))
    if not matrix or precision.is_float32(name):
        return "F32"
    for form in (kind, FALLBACK) if kind and large else ():
        if stored.shape[1] % gguf.BLOCKS[form.upper()][0] == 0:
            return form.upper()
    if stored.dtype in (*PLAIN, "F32") and stored.scale is None or stored.in_gguf:
        return stored.dtype
    return PLAIN[0]


def _tell_fallback(path: Path, pieces: list[Piece], kind: str | None) -> None:
    """Says how many matrices are in another type than was asked for."""
    types = [dtype for piece in pieces for dtype, _ in piece.layout.values()]
    if kind and types.count(kind.upper()) == 0:
        LOG.warning("%s: no matrix has rows of whole blocks of %s", path.name, kind)
    elif kind and kind != FALLBACK and FALLBACK.upper() in types:
        count = types.count(FALLBACK.upper())
        LOG.warning("%s: %d matrices whose rows are no blocks of %s are in %s", path.name, count, kind, FALLBACK)


def _data(name: str, stored: Stored, dtype: str) -> Iterator:
    """The bytes of a tensor in its new type."""
    if dtype == stored.dtype and stored.scale is None:
        yield from read_chunks(stored)
        return
    w = libraries.for_files().as_float32(stored)
    if not np.isfinite(w).all():
        raise ValueError(f"{name} holds NaN or infinity; the checkpoint is broken, download it again")
    if dtype in gguf.BLOCKS:
        w = gguf_quants.quantise(w, dtype.lower())
    elif dtype != "F32":
        w = numbers.as_bytes(w, dtype)
    yield np.ascontiguousarray(w).reshape(-1).view(np.uint8)


def _t5_values(source: Source) -> dict[str, Any]:
    """What llama.cpp wants to know of a text encoder."""
    config, prefix = source.config, ARCHITECTURE["text_encoder"]
    said = {"context_length": 512, "embedding_length": config["d_model"], "feed_forward_length": config["d_ff"]}
    said |= {"block_count": config["num_layers"], "attention.head_count": config["num_heads"]}
    said |= {"attention.key_length": config["d_kv"], "attention.value_length": config["d_kv"]}
    said |= {"attention.layer_norm_rms_epsilon": float(config.get("layer_norm_epsilon", 1e-6))}
    said |= {"attention.relative_buckets_count": config.get("relative_attention_num_buckets", 32)}
    return {f"{prefix}.{key}": value for key, value in said.items()}


def _tokenizer_values(files: dict[str, bytes], path: Path) -> dict[str, Any]:
    """A tokenizer's texts as they are, its sentencepiece model as llama.cpp's lists. ValueError for a broken one."""
    found: dict[str, Any] = {}
    for name, data in files.items():
        if name != SPIECE and name.endswith((".json", ".txt")):
            found[gguf_tokenizer.FILES + name] = data.decode()
    if SPIECE in files:
        try:
            lists, lost = _lists(files[SPIECE]), _lost(files[SPIECE])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            raise ValueError(f"{path}: the sentencepiece model is broken ({error})") from error
        if lost and "tokenizer.json" not in files:
            raise ValueError(f"{path}: a GGUF file cannot say that the tokenizer {lost}; take the format single")
        found |= {gguf_tokenizer.LISTS + key: value for key, value in lists.items()}
    return found


def _lists(model: bytes) -> dict[str, Any]:
    """A sentencepiece model's pieces and options, by llama.cpp's names for them."""
    parts = [(number, dict(fields(value))) for number, value in fields(model) if number <= 3]
    pieces = [part for number, part in parts if number == 1]
    trainer, normaliser = (next((part for number, part in parts if number == n), {}) for n in (2, 3))
    return {
        **{"model": "t5", "pre": "default", "tokens": [piece[1].decode() for piece in pieces]},
        "scores": [struct.unpack("<f", piece.get(2, bytes(4)))[0] for piece in pieces],
        "token_type": [piece.get(3, 1) for piece in pieces],
        **{"eos_token_id": trainer.get(42, 2), "unknown_token_id": trainer.get(40, 0), "padding_token_id": 0},
        **{"add_space_prefix": bool(normaliser.get(3, 1)), "remove_extra_whitespaces": bool(normaliser.get(4, 1))},
        "precompiled_charsmap": normaliser.get(2, b""),
    }


def _lost(model: bytes) -> str:
    """What llama.cpp's lists have no name for, of what this model does; empty if nothing."""
    trainer, normaliser = (dict(f for n, value in fields(model) if n == part for f in fields(value)) for part in (2, 3))
    if trainer.get(24):
        return "adds spaces behind words (treat_whitespace_as_suffix)"
    return "" if normaliser.get(5, 1) else "leaves spaces as they are (escape_whitespaces)"
