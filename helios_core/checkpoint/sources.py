"""Where a part's tensors lie, under their published names, whatever the files call them. Headers only, no framework.

A part is "transformer", "vae" or "text_encoder". A backend reads a `Source` tensor by tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import read_json
from ..disk import parse_json as parse
from ..disk import parse_object
from . import gguf, gguf_tokenizer, headers, inferred, marks, padded, recognise
from .names import DROPPED, FORMATS, LAYER_FORMAT, MARKER, SCALES, SPIECE, ZERO, published, split_parts, strip_prefix
from .precision import EMBEDDINGS
from .stored import Stored

PARTS = ("transformer", "vae", "text_encoder")
# Left over from training in some published files; never used in inference.
LEFTOVERS = ("gan_heads.", "gan_final_head.", "_loras.", "norm_added_q")
DOCUMENTS = "helios"  # key in a file's metadata: the checkpoint's JSON files, as one JSON object of texts by path
TOKENIZER = "tokenizer."  # prefix of tensors that hold the tokenizer's files


@dataclass(frozen=True)
class Source:
    """One part. tensors: published name -> Stored. config: what its config.json says, or what the shapes say.

    tokenizer: a text encoder's: a folder, or a file of it among the tensors; None if there is none.
    path: for messages.
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
    def nbytes(self) -> int:
        """Bytes of its tensors on disk."""
        return sum(stored.whole for stored in self.tensors.values())

    @property
    def quantised(self) -> str | None:
        """How its weights are stored, if quantised: fp8_e4m3fn, int8, int4, or names of ComfyUI's or GGUF's forms."""
        return ", ".join(dict.fromkeys(filter(None, (stored.form for stored in self.tensors.values())))) or None


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
    layers = {}
    for file in sorted({info.file for info in found.values()}):
        layers |= marks.of_metadata(headers.read_metadata(file), file)
    return _source(folder, part, {name: name for name in found}, found, layers, config, tokenizer)


def _open_file(path: Path, part: str) -> Source:
    found, metadata = headers.read_header(path), headers.read_metadata(path)
    parts = split_parts(found)
    if parts is not None and not parts[part]:
        raise ValueError(f"{path} holds no {part}, only {', '.join(name for name in parts if parts[name])}")
    names = parts[part] if parts else strip_prefix(found)
    config = _metadata_config(metadata, part, path)
    tokenizer = _tokenizer(path, found) if part == "text_encoder" else None
    layers = marks.of_metadata(metadata, path)
    return _source(path, part, names, found, layers, config, tokenizer, metadata)


def _source(path, part, names: Mapping, found: Mapping, layers: Mapping, config, tokenizer, metadata=None) -> Source:
    """names: short name -> key in `found`. layers: what the metadata says of quantised ones."""
    recognise.check(path, part, names)
    tensors = stored_tensors(path, part, names, found, layers)
    if config is None:
        config = inferred.infer(part, {name: stored.shape for name, stored in tensors.items()}, path)
    return Source(path, part, tensors, config, tokenizer, metadata or {})


def stored_tensors(
    path: Path, part: str, names: Mapping[str, str], found: Mapping, layers: Mapping
) -> dict[str, Stored]:
    """Published name -> tensor, factors and marks with their weights. names: short name -> key in `found`.

    ValueError for factors and marks that do not fit.
    """
    plain = {name: Stored(found[key].file, key, *found[key][1:]) for name, key in names.items()}
    marks.attach(path, plain, names, found, layers)
    factors = {name: name.rpartition(".")[0] + ".weight" for name in plain if name.endswith(FACTORS)}
    extra = {name: plain.pop(name) for name in list(plain) if name in factors or _is_aside(name)}
    for name, weight in factors.items():
        if weight not in plain:
            raise ValueError(f"{path}: {name} is a factor of {weight}, which is missing")
        if not plain[weight].shape:
            raise ValueError(f"{path}: {weight} has a factor and is no matrix; download the file again")
        plain[weight] = _with_factor(plain[weight], name, extra[name])
    for name, stored in plain.items():
        if stored.marks is None:
            _check_factors(path, name, stored)
    tensors = {new: plain[old] for new, old in published(part, plain).items()}
    return tensors | padded.find(tensors)


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
    if scale is not None and weight.dtype == "I8" and scale.key.endswith(SCALES[1]):
        raise ValueError(
            f"{path}: {name} is I8, and nothing in the file says in which of ComfyUI's forms, such as whether it is "
            f"rotated ({LAYER_FORMAT}, or {FORMATS} in the metadata); download the file again"
        )
    if scale is None:
        fits = weight.dtype in FLOATS and zero is None
    elif math.prod(scale.shape) == 1 or scale.shape == shape[:1]:
        fits = scale.dtype in FLOATS and zero is None
    else:
        groups = len(scale.shape) == len(shape) == 2 and scale.shape[0] == shape[0] and 0 not in scale.shape
        groups = groups and shape[1] % scale.shape[1] == 0
        fits = groups and scale.dtype in FLOATS and (zero is None or zero.shape == scale.shape)
    if not fits:
        said = f"{scale.dtype} {scale.shape}" if scale else "no factors"
        raise ValueError(f"{path}: {name} is {weight.dtype} {shape} with {said}; no quantised form of this is known")


def _is_aside(name: str) -> bool:
    """Tensors that are no weights of the model."""
    return name in (MARKER, SPIECE, headers.SAID) or name.startswith(TOKENIZER) or name.endswith(DROPPED)


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
    said = parse(metadata.get(DOCUMENTS, "{}"), f"{path}: {DOCUMENTS} in its metadata")
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise ValueError(f"{path}: its metadata is broken (not texts by path); convert the checkpoint again")
    return said


def _metadata_config(metadata: Mapping, part: str, path: Path) -> dict | None:
    text = documents(metadata, path).get(f"{part}/config.json")
    return None if text is None else parse_object(text, f"{path}: {part}/config.json in its metadata")


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
