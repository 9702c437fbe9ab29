"""The files that a checkpoint becomes, tensor by tensor: published folder, one file, ComfyUI's three files.

Tensors are copied byte for byte, or quantised one at a time, so that memory holds one tensor at most. Configurations
travel in the metadata of a file, the tokenizer's files as byte tensors, so that a folder comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import DOCUMENTS, PARTS, TOKENIZER, Layout, Source, Stored, names, nbytes, numbers, precision, writing
from ..devices import libraries

CHUNK = 16 << 20
SHARD = 5_000_000_000  # bytes of a published folder's shard
WEIGHTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
SPIECE = "spiece.model"
PLACES = {"transformer": "diffusion_models", "vae": "vae", "text_encoder": "text_encoders"}


class Piece(NamedTuple):
    """A source's tensor on its way: the tensors it becomes, and how to give each its bytes."""

    layout: Layout
    data: Callable[[], Iterator[tuple[str, Iterator]]]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(nbytes(*tensor) for tensor in self.layout.values())


@dataclass(frozen=True)
class Output:
    """One weights file to write, of safetensors here."""

    path: Path
    pieces: list[Piece]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(piece.size for piece in self.pieces)

    def write(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """progress: called with the bytes that each tensor added."""
        layout = {name: tensor for piece in self.pieces for name, tensor in piece.layout.items()}
        with writing(self.path, layout, {"format": "pt", **self.metadata}) as out:
            for piece in self.pieces:
                for name, chunks in piece.data():
                    out.put(name, chunks)
                progress(piece.size)


def read_chunks(stored: Stored) -> Iterator[bytes]:
    """A stored tensor's bytes, a few at a time. ValueError for a file that has become shorter."""
    left = stored.nbytes
    with stored.file.open("rb") as file:
        file.seek(stored.start)
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise ValueError(f"{stored.file} ended inside {stored.key}; it changed while it was read")
            left -= len(chunk)
            yield chunk


def copied(name: str, stored: Stored, *, check: bool = False) -> Piece:
    """As it is stored, its factors beside it under this pack's names, or all that ComfyUI's marks say under its own.

    check: refuses NaN and infinity.
    """
    layer, said = name.removesuffix(".weight"), {}
    parts = {name: stored.codes, layer + names.SCALES[0]: stored.scale, layer + names.ZERO: stored.zero}
    if stored.marks is not None and not stored.marks.old:
        parts = {name: stored.codes, **{f"{layer}.{key}": part for key, part in stored.marks.parts}}
        said = {layer + names.LAYER_FORMAT: stored.marks.said.encode()}
    found = {key: part for key, part in parts.items() if part is not None}
    layout = {key: (part.dtype, part.shape) for key, part in found.items()}
    layout |= {key: ("U8", (len(text),)) for key, text in said.items()}

    def data() -> Iterator[tuple[str, Iterator]]:
        if check:
            libraries.for_files().check_finite(name, stored)
        yield from ((key, read_chunks(part)) for key, part in found.items())
        yield from ((key, iter([text])) for key, text in said.items())

    return Piece(layout, data)


def widened(name: str, stored: Stored, dtype: str) -> Piece:
    """Out of GGUF's blocks, which safetensors have not. dtype: BF16, F16 or F32."""

    def data() -> Iterator[tuple[str, Iterator]]:
        return iter([(name, iter([numbers.as_bytes(libraries.for_files().as_float32(stored), dtype)]))])

    return Piece({name: (dtype, stored.shape)}, data)


def quantised(name: str, stored: Stored, kind: str) -> Piece:
    """In fewer bits (backends/torch/quant.py)."""

    def data() -> Iterator[tuple[str, Iterator]]:
        return libraries.for_files().quantised_bytes(name, stored, kind)

    return Piece(precision.quantised_layout(name, stored.shape, kind), data)


def blob(name: str, data: bytes) -> Piece:
    """A small file as a tensor of bytes."""
    return Piece({name: ("U8", (len(data),))}, lambda: iter([(name, iter([data]))]))


def make_pieces(source: Source, rename: Callable[[str], str], kind: str | None = None) -> list[Piece]:
    """A part's tensors under the names that `rename` gives to the published ones.

    kind: to quantise a transformer to; ValueError for one that is quantised already.
    """
    if kind and source.part == "transformer":
        if source.quantised:
            raise ValueError(f"{source.path} is quantised already ({source.quantised}); quantise the original instead")
        return [
            quantised(rename(name), stored, kind)
            if precision.is_quantised(name)
            else copied(rename(name), stored, check=True)
            for name, stored in source.tensors.items()
        ]
    plain = precision.compute_format(source, "auto", fast_bf16=False) if source.part == "transformer" else "BF16"
    return [
        widened(rename(name), stored, plain) if stored.in_gguf else copied(rename(name), stored)
        for name, stored in source.tensors.items()
    ]


class Contents(NamedTuple):
    """What is converted. texts: the JSON files by their path in a published folder. tokenizer: its files by name."""

    sources: dict[str, Source]
    texts: dict[str, str]
    tokenizer: dict[str, bytes]


def single(path: Path, contents: Contents, kind: str | None) -> list[Output]:
    """One file: of one part under its published names, of several under the prefixes of ComfyUI's checkpoints."""
    sources, texts, tokenizer = contents
    pieces, several = [], len(sources) > 1
    for part, source in sources.items():
        prefix = names.WHOLE[part][0] if several else ""
        pieces += make_pieces(source, lambda name, prefix=prefix: prefix + name, kind)
    pieces += [blob(TOKENIZER + name, data) for name, data in tokenizer.items()]
    said = {DOCUMENTS: json.dumps(_concerning(texts, sources))}
    return [Output(path, pieces, said | ({precision.METADATA: kind} if kind else {}))]


def _concerning(texts: dict[str, str], sources: dict[str, Source]) -> dict[str, str]:
    """Without the configs of parts that are not there, and without the whole's if there is no transformer."""
    kept = {name: text for name, text in texts.items() if name.partition("/")[0] in sources}
    whole = {name: text for name, text in texts.items() if name.partition("/")[0] not in PARTS}
    return kept | whole if "transformer" in sources else kept


def metadata(contents: Contents, part: str) -> dict[str, str]:
    """What a file of one part says of itself."""
    return {DOCUMENTS: json.dumps(_concerning(contents.texts, {part: contents.sources[part]}))}


def comfy(path: Path, contents: Contents) -> list[Output]:
    """ComfyUI's folders below `path`: a file per part, under the key names that ComfyUI's own loaders know."""
    sources, _, tokenizer = contents
    outputs = []
    for part, source in sources.items():
        rename = {"transformer": names.pull_request_name, "vae": names.wan_names(source.tensors).get}.get(part, str)
        pieces = make_pieces(source, rename) + _marker(source)
        if part == "text_encoder":
            pieces += [blob(names.SPIECE if name == SPIECE else TOKENIZER + name, x) for name, x in tokenizer.items()]
        file = path / PLACES[part] / f"{path.name}_{part}.safetensors"
        outputs.append(Output(file, pieces, metadata(contents, part)))
    return outputs


def _marker(source: Source) -> list[Piece]:
    """What tells ComfyUI that weights are scaled fp8, which for it has one factor per layer."""
    scaled = [s for s in source.tensors.values() if s.scale and (s.marks is None or s.marks.old)]
    if not scaled:
        return []
    if any(stored.dtype != "F8_E4M3" or len(stored.scale.shape) > 1 for stored in scaled):
        raise ValueError(f"{source.path} holds this pack's quantised weights, which ComfyUI itself does not read")
    return [Piece({names.MARKER: ("F8_E4M3", (0,))}, lambda: iter([(names.MARKER, iter([b""]))]))]


def folder(path: Path, contents: Contents, kind: str | None) -> list[Output]:
    """The published layout's weights, in shards where they are large. The other files: `folder_files`."""
    outputs = []
    for part, source in contents.sources.items():
        shards = _shards(make_pieces(source, str, kind))
        stem = WEIGHTS[part]
        said = {precision.METADATA: kind} if kind and part == "transformer" else {}
        for index, pieces in enumerate(shards, 1):
            number = f"-{index:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            outputs.append(Output(path / part / f"{stem}{number}.safetensors", pieces, said))
    return outputs


def _shards(pieces: list[Piece]) -> list[list[Piece]]:
    shards, size = [[]], 0
    for piece in pieces:
        if shards[-1] and size + piece.size > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.size
    return shards


def dump(value: dict) -> str:
    """JSON as the published files have it."""
    return json.dumps(value, indent=2) + "\n"


def folder_files(outputs: list[Output], contents: Contents) -> dict[str, bytes]:
    """What a published folder holds besides weights: path in it -> bytes. An index for every part with shards."""
    files = {name: text.encode() for name, text in contents.texts.items()}
    files |= {f"tokenizer/{name}": data for name, data in contents.tokenizer.items()}
    by_part: dict[str, list[Output]] = {}
    for output in outputs:
        by_part.setdefault(output.path.parent.name, []).append(output)
    for part, shards in by_part.items():
        if len(shards) > 1:
            places = {name: out.path.name for out in shards for piece in out.pieces for name in piece.layout}
            index = {"metadata": {"total_size": sum(out.size for out in shards)}, "weight_map": places}
            files[f"{part}/{WEIGHTS[part]}.safetensors.index.json"] = dump(index).encode()
    return files
