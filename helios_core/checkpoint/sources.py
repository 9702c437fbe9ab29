"""Where a part's tensors lie, under their published names, whatever the files call them. Headers only, no framework.

A part is "transformer", "vae" or "text_encoder". A backend reads a `Source` tensor by tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..config import read_json
from . import gguf, gguf_tokenizer, headers, inferred, precision, recognise
from .names import DROPPED, FORMATS, LAYER_FORMAT, MARKER, SCALES, SPIECE, ZERO, published, split_parts, strip_prefix

PARTS = ("transformer", "vae", "text_encoder")
# Left over from training in some published files; never used in inference.
LEFTOVERS = ("gan_heads.", "gan_final_head.", "_loras.", "norm_added_q")
DOCUMENTS = "helios"  # key in a file's metadata: the checkpoint's JSON files, as one JSON object of texts by path
TOKENIZER = "tokenizer."  # prefix of tensors that hold the tokenizer's files
# ComfyUI's formats of one factor per layer; the others are rotated or computed in blocks.
LAYER_FORMATS = ("float8_e4m3fn", "float8_e5m2")
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # the text encoder's two names of one tensor


class Stored(NamedTuple):
    """A tensor in a file: its key there, safetensors dtype, shape, where its bytes begin; and the stored factors of a
    quantised one (backends/torch/quant.py). The shape is the weight's: int4 keeps two of a row in each byte, a type of
    gguf.BLOCKS some columns in each block."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    scale: Stored | None = None
    zero: Stored | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape on disk: of int4 with half the columns, two numbers to a byte; of blocks their bytes."""
        if self.in_blocks:
            return gguf.row_bytes(self.dtype, self.shape)
        return self.shape if self.zero is None else (self.shape[0], self.shape[1] // 2)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.stored_shape) * headers.BYTES.get(self.dtype, 1)

    @property
    def in_blocks(self) -> bool:
        """Whether it is quantised as GGUF has it: factors and codes in one."""
        return self.dtype in gguf.BLOCKS

    @property
    def codes(self) -> Stored:
        """What the file holds, without the factors."""
        dtype = "U8" if self.in_blocks else self.dtype
        return self._replace(dtype=dtype, shape=self.stored_shape, scale=None, zero=None)

    def read(self) -> bytes:
        """Its bytes; for small ones."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.nbytes)


@dataclass(frozen=True)
class Source:
    """One part. tensors: published name -> Stored. config: what its config.json says, or what the shapes say.

    tokenizer: a text encoder's: a folder, or a file of it among the tensors; None if there is none.
    quantised: fp8_e4m3fn, int8 or int4 if its weights are stored that way, else None. path: for messages.
    """

    path: Path
    part: str
    tensors: dict[str, Stored]
    config: dict
    tokenizer: Path | Stored | gguf_tokenizer.Inside | None = None
    metadata: dict = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors, sorted."""
        return sorted({stored.file for stored in self.tensors.values()})

    @property
    def quantised(self) -> str | None:
        """How its weights are stored, if quantised: fp8_e4m3fn, int8 or int4, or GGUF's most common type, as q4_k."""
        if blocks := [stored.dtype.lower() for stored in self.tensors.values() if stored.in_blocks]:
            return max(set(blocks), key=lambda form: (blocks.count(form), form))
        formats = {dtype: name for name, dtype in precision.QUANTISED.items()}
        return next((formats.get(s.dtype, s.dtype) for s in self.tensors.values() if s.scale), None)


def open_part(path, part: str) -> Source:
    """A part of a checkpoint folder, or of a weights file, by itself or in a file of all parts.

    ValueError for what is missing, broken, or clearly another model's.
    """
    path = Path(path)
    return _open_file(path, part) if path.is_file() else _open_folder(path, part)


def _open_folder(path: Path, part: str) -> Source:
    folder = path / part
    if not folder.is_dir() and any(path.glob("*.safetensors")) and (path / "config.json").is_file():
        folder = path  # the part's own folder
    found = headers.read_headers(folder)
    config = read_json(folder / "config.json")
    tokenizer = folder.parent / "tokenizer" if part == "text_encoder" else None
    return _source(folder, part, {name: name for name in found}, found, config, tokenizer)


def _open_file(path: Path, part: str) -> Source:
    found, metadata = headers.read_header(path), headers.read_metadata(path)
    parts = split_parts(found)
    if parts is not None and not parts[part]:
        raise ValueError(f"{path} holds no {part}, only {', '.join(name for name in parts if parts[name])}")
    names = parts[part] if parts else strip_prefix(found)
    _check_layers(metadata, path)
    config = _metadata_config(metadata, part, path)
    tokenizer = _tokenizer(path, found) if part == "text_encoder" else None
    return _source(path, part, names, found, config, tokenizer, metadata)


def _source(path, part, names: Mapping, found: Mapping, config, tokenizer, metadata=None) -> Source:
    """names: short name -> key in `found`."""
    recognise.check(path, part, names)
    tensors = _stored(path, part, names, found)
    if config is None:
        config = inferred.infer(part, {name: stored.shape for name, stored in tensors.items()}, path)
    return Source(path, part, tensors, config, tokenizer, metadata or {})


def _stored(path: Path, part: str, names: Mapping[str, str], found: Mapping) -> dict[str, Stored]:
    """Published name -> tensor, factors beside their weights."""
    plain = {name: Stored(found[key].file, key, *found[key][1:]) for name, key in names.items()}
    factors = {name: name.rpartition(".")[0] + ".weight" for name in plain if name.endswith(FACTORS)}
    said = {name: plain.pop(name).read() for name in list(plain) if name.endswith(LAYER_FORMAT)}
    _check_formats(path, said)
    extra = {name: plain.pop(name) for name in list(plain) if name in factors or _is_aside(name)}
    for name, weight in factors.items():
        if weight not in plain:
            raise ValueError(f"{path}: {name} is a factor of {weight}, which is missing")
        plain[weight] = _with_factor(plain[weight], name, extra[name])
    for name, stored in plain.items():
        _check_factors(path, name, stored)
    return {new: plain[old] for new, old in published(part, plain).items()}


FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", *gguf.BLOCKS)
FACTORS = (*SCALES, ZERO)


def _with_factor(weight: Stored, name: str, factor: Stored) -> Stored:
    if not name.endswith(ZERO):
        return weight._replace(scale=factor)
    *rows, columns = weight.shape
    return weight._replace(zero=factor, shape=(*rows, 2 * columns))


def _check_factors(path: Path, name: str, weight: Stored) -> None:
    """One factor, one per row, or one per row and group of columns; whole numbers mean nothing without."""
    scale, zero, shape = weight.scale, weight.zero, weight.shape
    if scale is None:
        fits = weight.dtype in FLOATS and zero is None
    elif math.prod(scale.shape) == 1 or scale.shape == shape[:1]:
        fits = scale.dtype in FLOATS and zero is None
    else:
        groups = len(scale.shape) == len(shape) == 2 and scale.shape[0] == shape[0] and shape[1] % scale.shape[1] == 0
        fits = groups and scale.dtype in FLOATS and (zero is None or zero.shape == scale.shape)
    if not fits:
        said = f"{scale.dtype} {scale.shape}" if scale else "no factors"
        raise ValueError(f"{path}: {name} is {weight.dtype} {shape} with {said}; no quantised form of this is known")


def _is_aside(name: str) -> bool:
    """Tensors that are no weights of the model."""
    return name in (MARKER, SPIECE, headers.SAID) or name.startswith(TOKENIZER) or name.endswith(DROPPED)


def _check_formats(path: Path, layers: Mapping[str, bytes]) -> None:
    """Refuses number formats of ComfyUI that are more than a factor. layers: name -> JSON text."""
    for name, text in layers.items():
        try:
            said = json.loads(text)
            known = said["format"] in LAYER_FORMATS and not said.get("convrot")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name} does not say a layer's format ({error}); the file is broken") from error
        if not known:
            raise ValueError(f"{path}: {name} says {said}; read are {', '.join(LAYER_FORMATS)} without rotation")


def _check_layers(metadata: Mapping, path: Path) -> None:
    """The same for files that say it in their metadata."""
    try:
        layers = json.loads(metadata.get(FORMATS, "{}")).get("layers", {})
        said = {name: json.dumps(layer).encode() for name, layer in layers.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: {FORMATS} in its metadata is broken ({error})") from error
    _check_formats(path, said)


def _tokenizer(path: Path, found: Mapping) -> Stored | gguf_tokenizer.Inside | None:
    """A tokenizer's file among the tensors, under any prefix, or in a GGUF file's values."""
    if gguf.is_gguf(path):
        return gguf_tokenizer.find(path)
    wanted = (f"{TOKENIZER}tokenizer.json", f"{TOKENIZER}spiece.model", SPIECE)
    for ending in wanted:
        for key in found:
            if key == ending or key.endswith(f".{ending}"):
                return Stored(found[key].file, key, *found[key][1:])
    return None


def documents(metadata: Mapping, path: Path) -> dict[str, str]:
    """The checkpoint's JSON files that `helios convert` keeps in a file's metadata: path in the folder -> text.

    ValueError where they are broken.
    """
    try:
        return dict(json.loads(metadata.get(DOCUMENTS, "{}")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata is broken ({error}); convert the checkpoint again") from error


def _metadata_config(metadata: Mapping, part: str, path: Path) -> dict | None:
    text = documents(metadata, path).get(f"{part}/config.json")
    return None if text is None else json.loads(text)


def check_network(source: Source, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the headers with a network's published names and shapes."""
    headers.check_keys(str(source.path), dict(wanted), source.tensors, ignored=LEFTOVERS)


def check_text_encoder(source: Source) -> None:
    """Compares a text encoder's headers with its config; of the embedding's two names one is enough."""
    config = source.config
    wanted = inferred.umt5(config)
    stored = [name for name in EMBEDDINGS if name in source.tensors]
    wanted |= dict.fromkeys(stored or EMBEDDINGS[:1], (config["vocab_size"], config["d_model"]))
    headers.check_keys(f"text encoder {source.path}", wanted, source.tensors)


def check_tokenizer(place) -> None:
    """ValueError if there is no tokenizer to read, before gigabytes of weights are."""
    if place is None:
        raise ValueError(
            "the text encoder's file holds no tokenizer; take one that does (umt5_xxl_fp16.safetensors or "
            "umt5_xxl_fp8_e4m3fn_scaled.safetensors of ComfyUI), or the text_encoder folder of a checkpoint"
        )
    if isinstance(place, Path) and not any((place / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise ValueError(f"{place} must hold tokenizer.json or spiece.model; take it from the checkpoint")
