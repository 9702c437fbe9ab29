"""ComfyUI's quantised layers: how a file says what a layer is in, what lies beside its weight, and what may.

Said by `<layer>.comfy_quant`, JSON as bytes; by `_quantization_metadata` in the header, the same for all layers; or by
an older file's empty tensor `scaled_fp8`. The forms are those of ComfyUI's ops.py and of comfy_kitchen's layouts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import log, prod
from typing import NamedTuple

import numpy as np

from ..disk import parse_object
from .names import FORMATS, LAYER_FORMAT, MARKER, SCALES
from .numbers import NUMPY, as_float32
from .stored import Marks, Stored

FP8, SCALED = ("float8_e4m3fn", "float8_e5m2"), {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
FLOATS = ("F32", "F16", "BF16")
ROTATED = ("int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8")
NVFP4, MXFP8 = 16, 32  # columns to a factor


Shapes = Callable[[int, int, Marks], list[tuple[int, ...]]]


class Factor(NamedTuple):
    """A tensor beside a weight. shapes: those it may have, of a weight [o i]; count: only the number of values counts,
    and there may be one row of zeros more."""

    dtypes: tuple[str, ...]
    shapes: Shapes
    needed: bool = True
    count: bool = False


class Form(NamedTuple):
    """dtypes: of the codes; packed: codes to a byte; kept: the form of ours that it has in memory, None: none."""

    dtypes: tuple[str, ...]
    parts: dict[str, Factor]
    kept: str | None
    packed: int = 1


def _swizzled(size: int) -> Shapes:
    """Tiles of 128 rows and 4 groups of columns."""
    return lambda o, i, _: [(-(-o // 128) * 128, -(-(i // size) // 4) * 4)]


def _one(*_) -> list[tuple[int, ...]]:
    return [(), (1,)]


def _rows(o: int, *_) -> list[tuple[int, ...]]:
    return [(), (1,), (1, 1), (o,), (o, 1)]


INPUT = {"input_scale": Factor(FLOATS, _one, needed=False)}
ROWS = {"weight_scale": Factor(FLOATS, _rows)}
FORMS = {
    "float8_e4m3fn": Form(("F8_E4M3",), {"weight_scale": Factor(FLOATS, _rows, needed=False), **INPUT}, "fp8_e4m3fn"),
    "float8_e5m2": Form(("F8_E5M2",), {"weight_scale": Factor(FLOATS, _rows, needed=False), **INPUT}, None),
    "int8_tensorwise": Form(("I8",), ROWS | INPUT, "int8"),
    "nvfp4": Form(
        ("U8", "F4"),
        {
            "weight_scale": Factor(("F8_E4M3", "U8"), _swizzled(NVFP4), count=True),
            "weight_scale_2": Factor(FLOATS, _one),
            "pre_quant_scale": Factor(FLOATS, lambda o, i, _: [(i,), (1, i)], needed=False),
            **INPUT,
        },
        "int8",
        2,
    ),
    "mxfp8": Form(
        ("F8_E4M3",),
        {"weight_scale": Factor(("F8_E8M0", "U8"), _swizzled(MXFP8), count=True), **INPUT},
        "fp8_e4m3fn",
    ),
    "convrot_w4a4": Form(("I8", "U8"), ROWS, "int4", 2),
    "asym_w4a8_int8": Form(
        ("I8", "U8"),
        {
            "weight_s_rel": Factor(("F8_E4M3", "U8", "F32"), lambda o, i, m: [(o, i // m.group)]),
            "weight_s_channel": Factor(FLOATS, lambda o, *_: [(o,), (o, 1)]),
            "weight_codebook": Factor(FLOATS, lambda *_: [(16,)], needed=False),
            "weight_correction": Factor(FLOATS, lambda o, i, m: [(i // m.group, o)], needed=False),
        },
        "int8",
        2,
    ),
    "awq_w4a16": Form(
        ("I8", "U8"),
        {name: Factor(FLOATS, lambda o, i, m: [(i // m.group, o)]) for name in ("weight_scale", "weight_zeros")},
        "int8",
        2,
    ),
}
BESIDE = tuple({f".{name}": None for form in FORMS.values() for name in form.parts})


def of_metadata(metadata: Mapping[str, str], path) -> dict[str, str]:
    """Layer -> JSON, of what a file's metadata says. ValueError where it is broken."""
    where = f"{path}: {FORMATS} in its metadata"
    layers = parse_object(metadata.get(FORMATS, "{}"), where).get("layers", {})
    if not isinstance(layers, dict):
        raise ValueError(f"{where} is broken: 'layers' is no object; download the file again")
    return {name: json.dumps(layer) for name, layer in layers.items()}


def attach(path, tensors: dict[str, Stored], names: Mapping[str, str], found, layers: Mapping[str, str]) -> None:
    """Gives the weights among `tensors` their marks and what lies beside them, which goes from there, in place.

    names: short name -> key among all that are `found` in the file. layers: `of_metadata`. ValueError for marks of a
    weight that is not there, and for what `mark` refuses.
    """
    short, said = {key: name for name, key in names.items()}, {}
    for name in [name for name in tensors if name.endswith(LAYER_FORMAT)]:
        said[name.removesuffix(LAYER_FORMAT)] = _text(tensors.pop(name).read(), path, name)
    for layer, text in layers.items():
        name = short.get(f"{layer}.weight", f"{layer}.weight")
        if name in tensors or name not in found:
            said[name.removesuffix(".weight")] = text
    for layer, text in said.items():
        if f"{layer}.weight" not in tensors:
            raise ValueError(f"{path}: {layer} is said to be quantised, and {layer}.weight is missing")
        parts = [(name[1:], tensors.pop(layer + name)) for name in BESIDE if layer + name in tensors]
        tensors[f"{layer}.weight"] = mark(path, f"{layer}.weight", tensors[f"{layer}.weight"], text, parts)
    if MARKER in tensors and not said:
        _attach_old(path, tensors)


def _attach_old(path, tensors: dict[str, Stored]) -> None:
    """The same for older files: `scaled_fp8`, of two numbers where products are not to be in fp8."""
    precise = {"full_precision_matrix_mult": True} if tensors[MARKER].shape == (2,) else {}
    for name in [name for name in tensors if name.endswith(SCALES[0])]:
        layer = name.removesuffix(SCALES[0])
        weight = tensors.get(f"{layer}.weight")
        if weight is None or weight.dtype not in SCALED or tensors[name].dtype not in FLOATS:
            continue
        said = json.dumps({"format": SCALED[weight.dtype], **precise})
        given = tensors.get(f"{layer}.scale_input")
        beside = [("input_scale", given)] if given and _counts(given) else []
        parts = [("weight_scale", tensors.pop(name)), *beside]
        tensors[f"{layer}.weight"] = mark(path, f"{layer}.weight", weight, said, parts, old=True)


def _counts(scale: Stored) -> bool:
    """Whether a factor of inputs is one number, and not 1."""
    if scale.dtype not in FLOATS or prod(scale.shape) != 1:
        return False
    codes = np.frombuffer(scale.read(), NUMPY[scale.dtype])
    return bool(as_float32(codes, scale.dtype)[0] != 1)


def _text(text: bytes, path, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {name} is no text, and was to say a layer's format; download it again") from error


def mark(path, name: str, weight: Stored, said: str, parts: Iterable[tuple[str, Stored]], old: bool = False) -> Stored:
    """A weight, as the file has it, with its marks, in its own shape. ValueError for what is unknown or unfit."""
    where = f"{path}: {name.removesuffix('.weight')}"
    marks = Marks(_format(said, where), said, tuple(parts), old)
    form = FORMS[marks.format]
    if weight.dtype not in form.dtypes or not weight.shape or (len(weight.shape) != 2 and marks.format not in FP8):
        raise ValueError(
            f"{where}{LAYER_FORMAT} says {marks.format}, and the weight is {weight.dtype} {weight.shape}; it is broken"
        )
    if form.packed == 2 and weight.dtype != "F4":
        weight = weight._replace(shape=(weight.shape[0], 2 * weight.shape[1]))
    _check_sizes(where, marks, weight.shape)
    _check_parts(where, marks, weight.shape)
    blocks = marks.format not in FP8 and (marks.format != "int8_tensorwise" or marks.rotation > 0)
    scale = None if blocks else marks.found.get("weight_scale")
    held = _held(marks, weight.shape, form.kept) if blocks else 0
    marks = marks._replace(four=form.packed > 1, blocks=blocks, kept=form.kept, held=held)
    return weight._replace(marks=marks, scale=scale)


def _held(marks: Marks, shape: tuple[int, int], kept: str) -> int:
    """Bytes in memory of what `unpacked.unpack` makes."""
    rows, columns = shape
    size = {"nvfp4": NVFP4, "mxfp8": MXFP8, "awq_w4a16": marks.group}.get(marks.format, columns)
    zeros = {"weight_correction", "weight_zeros"} & set(marks.found)
    factors = rows * (columns // (marks.group if zeros else size))
    return rows * columns // (2 if kept == "int4" else 1) + 4 * factors * (2 if zeros else 1)


def _format(said: str, where: str) -> str:
    found = parse_object(said, f"{where}{LAYER_FORMAT}, a layer's format,").get("format")
    if found is None:
        raise ValueError(f"{where}{LAYER_FORMAT} does not say a layer's format; download it again")
    if not isinstance(found, str) or found not in FORMS:
        raise ValueError(f"{where}{LAYER_FORMAT} says {str(found)[:60]!r}; read are {', '.join(FORMS)}")
    return found


def _check_sizes(where: str, marks: Marks, shape: tuple[int, ...]) -> None:
    """That the columns are made of whole groups."""
    try:
        rotation, group = marks.rotation, marks.group
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{where}{LAYER_FORMAT}: {marks.said[:200]} has sizes that are no numbers") from error
    if rotation and marks.format not in ROTATED:
        raise ValueError(f"{where}{LAYER_FORMAT} says {marks.format} with convrot; rotated are {', '.join(ROTATED)}")
    if rotation and (rotation < 4 or round(log(rotation, 4)) != log(rotation, 4) or shape[1] % rotation):
        raise ValueError(
            f"{where}{LAYER_FORMAT} says that groups of {rotation} of {shape[1]} columns are rotated; wanted a power "
            "of 4 that divides them"
        )
    size = {"nvfp4": NVFP4, "mxfp8": MXFP8}.get(marks.format, group)
    if marks.format in ("nvfp4", "mxfp8", "asym_w4a8_int8", "awq_w4a16") and (size < 1 or shape[1] % size):
        raise ValueError(f"{where} has {shape[1]} columns, which {marks.format} in groups of {size} cannot have")


def _check_parts(where: str, marks: Marks, shape: tuple[int, ...]) -> None:
    wanted, found = FORMS[marks.format].parts, marks.found
    missing = [name for name, part in wanted.items() if part.needed and name not in found]
    if missing:
        raise ValueError(
            f"{where}{LAYER_FORMAT} says {marks.format}, and there is no {', '.join(missing)}; download it again"
        )
    for name, stored in found.items():
        if name not in wanted:
            raise ValueError(f"{where}.{name} has no place in {marks.format}, which has {', '.join(wanted)}")
        part = wanted[name]
        shapes = part.shapes(*(shape if len(shape) == 2 else (shape[0], prod(shape[1:]))), marks)
        fits = stored.shape in shapes or (part.count and prod(stored.shape) in map(prod, shapes))
        if stored.dtype not in part.dtypes or not fits:
            raise ValueError(
                f"{where}.{name} is {stored.dtype} {stored.shape}; {marks.format} of {shape} has "
                f"{' or '.join(part.dtypes)} of {' or '.join(map(str, shapes))}"
            )
