"""Weights files checked before a framework reads them: headers, shards, strict key reports. No framework here.

A safetensors file is eight bytes of little-endian header length, a JSON header that maps each name to dtype, shape
and byte offsets, then the data. A header that lies is refused here, by name, before gigabytes are mapped. GGUF files
are read too: see gguf.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from ..disk import as_object, parse_object, plain, read_object, shown
from ..disk import parse_json as parse
from . import gguf, recognise

BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1, "F4": 0.5}
FORMATS = "floats of 16 to 64 bits, float8 (e4m3, e5m2) and whole numbers; take the model in one of these"
MAX_HEADER = 100_000_000
SAID = "helios_documents"  # the name of a tensor that stands in for metadata
INDICES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")


class TensorInfo(NamedTuple):
    """Where a tensor lies: file, dtype name of the safetensors format or GGUF's, shape, where its bytes begin."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    if dtype in gguf.BLOCKS:
        return gguf.nbytes(dtype, shape)
    return int(math.prod(shape) * BYTES[dtype])


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of one weights file. ValueError if the file is missing, cut short or inconsistent."""
    if _is_gguf(path):
        return {name: TensorInfo(path, *tensor) for name, tensor in gguf.read(path).tensors.items()}
    header, length = _read_json(path)
    header.pop("__metadata__", None)
    _check_offsets(path, header, path.stat().st_size - 8 - length)
    return {
        name: TensorInfo(path, e["dtype"], tuple(e["shape"]), 8 + length + e["data_offsets"][0])
        for name, e in header.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts by which a weights file says what it is; empty if none. ValueError if it is broken.

    In a safetensors file a tensor named SAID says more: its bytes are the JSON of further entries, from programs that
    save tensors only.
    """
    if _is_gguf(path):
        return {name: value for name, value in gguf.read(path).values.items() if isinstance(value, str)}
    found, _ = _read_json(path)
    metadata = found.get("__metadata__") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: the safetensors header's metadata is no list of texts; download the file again")
    said = dict(metadata)
    for name in found:
        if name.rpartition(".")[2] == SAID:
            _, dtype, shape, begin = read_header(path)[name]
            with opened(path) as file:
                file.seek(begin)
                said |= _said(file.read(nbytes(dtype, shape)), path)
    return said


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        raise ValueError(f"weights file {path} is missing; download the checkpoint again")
    with opened(path) as file:
        return file.read(len(gguf.MAGIC)) == gguf.MAGIC


def _said(text: bytes, path: Path) -> dict[str, str]:
    return {name: str(value) for name, value in parse_object(text, f"{path}: {SAID} in it").items()}


def _read_json(path: Path) -> tuple[dict, int]:
    """The header and its length in bytes."""
    size = path.stat().st_size
    with opened(path) as file:
        start = file.read(64)
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            seems = recognise.of_bytes(start)
            advice = f": {seems}" if seems else f", or is cut short ({size} bytes); download it again"
            raise ValueError(
                f"{path} is not a {'GGUF' if path.suffix.lower() == '.gguf' else 'safetensors'} file{advice}"
            )
        file.seek(8)
        where = f"{path}: the safetensors header"
        try:
            return as_object(parse(file.read(length), where), where), length
        except ValueError as error:
            raise ValueError(f"{error}; download the file again") from error


def opened(path: Path):
    """The file, to read bytes from. ValueError if it cannot be."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _check_offsets(path: Path, header: dict, data_size: int) -> None:
    end = 0
    try:
        entries = sorted(_entry(name, info) for name, info in header.items())
    except ValueError as error:
        raise ValueError(f"{path}: the safetensors header is malformed ({error}); download the file again") from None
    for start, stop, name, dtype, count in entries:
        if dtype not in BYTES:
            raise ValueError(f"{path}: tensor {plain(name)} has the unknown dtype {plain(dtype)}; read are {FORMATS}")
        if start != end or stop - start != count * BYTES[dtype]:
            raise ValueError(
                f"{path}: tensor {plain(name)} overlaps another or has a wrong length; download the file again"
            )
        end = stop
    if end != data_size:
        raise ValueError(
            f"{path} is cut short or too long: its header names {end} bytes of weights, it holds {data_size}; "
            "download it again"
        )


def _entry(name: str, info) -> tuple[int, int, str, str, int]:
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{plain(name)} wants dtype, shape and data_offsets")
    dtype, shape, data_offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise ValueError(f"{plain(name)} has no dtype and shape")
    if not isinstance(data_offsets, list) or len(data_offsets) != 2:
        raise ValueError(f"{plain(name)} wants two offsets")
    start, stop = data_offsets
    wrong = [n for n in (start, stop, *shape) if type(n) is not int or not 0 <= n < 2**63]
    if wrong or len(shape) > 8:
        raise ValueError(f"{plain(name)} has the shape {plain(str(shape))} at {plain(str(data_offsets))}")
    return start, stop, name, dtype, math.prod(shape)


def find_files(folder: Path) -> list[Path]:
    """The safetensors files of one component folder: the shards of its index, or its only file.

    ValueError where there is none, or which ones cannot be told.
    """
    if not folder.is_dir():
        raise ValueError(f"folder {folder} is missing; a Helios checkpoint needs it")
    index = _find_index(folder)
    if index is not None:
        names = _shards(index)
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks the shards {missing} that {index.name} names; download them")
        return [folder / n for n in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no safetensors file; torch pickles are not read")
    if len(files) > 1:
        raise ValueError(f"{folder} holds {[f.name for f in files]} and no index; leave one file, or add the index")
    return files


def _shards(index: Path) -> list[str]:
    """The files that an index names, each in its own folder. ValueError for any other name."""
    said = read_object(index).get("weight_map")
    if not isinstance(said, dict) or not said or not all(isinstance(name, str) for name in said.values()):
        raise ValueError(f"{index} is no index of safetensors shards; download it again")
    names = sorted(set(said.values()))
    if foreign := [name for name in names if name != Path(name.replace("\\", "/")).name or not name.strip(".")]:
        raise ValueError(f"{index} names {shown(foreign[0])}, which is no file of its own folder; download it again")
    return names


def _find_index(folder: Path) -> Path | None:
    """The index of a folder's shards; of several, such as one more for fp16, the one without a variant's name."""
    found = sorted(folder.glob("*.safetensors.index.json"))
    plain = [path for path in found if path.name in INDICES]
    if len(found) > 1 and len(plain) != 1:
        raise ValueError(f"{folder} holds {[path.name for path in found]}; leave the index of one set of weights")
    return (plain or found or [None])[0]


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a component folder, over its shards. ValueError for one that is in two of them."""
    found: dict[str, TensorInfo] = {}
    for file in find_files(folder):
        header = read_header(file)
        double = sorted(set(header) & set(found))
        if double:
            raise ValueError(f"{folder}: tensors {double[:5]} are in two shards")
        found |= header
    return found


def check_keys(what: str, wanted: dict[str, tuple], found: dict[str, TensorInfo], *, ignored=()) -> None:
    """Strict loading: names every missing, unexpected or misshapen key in one ValueError."""
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(k for k in set(found) - set(wanted) if not any(part in k for part in ignored))
    shapes = [
        f"{k} {found[k].shape} instead of {tuple(wanted[k])}"
        for k in sorted(set(wanted) & set(found))
        if tuple(wanted[k]) != found[k].shape
    ]
    problems = [
        f"{len(keys)} {name}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}"
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
        if keys
    ]
    if problems:
        raise ValueError(
            f"{what}: the weights do not fit the model its config describes. " + "; ".join(problems) + ". "
            "The files are of another model or of another size; take config and weights from the same checkpoint."
        )
