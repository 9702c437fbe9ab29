"""Which number format each tensor of the transformer is kept in. No framework.

Three classes: the float32 islands of the reference, the linear layers of attention and feed-forward, which may be
quantised, and the rest (embeddings, biases, text and output projections), which keep the networks' dtype.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from math import gcd, prod

from .headers import BYTES

LOG = logging.getLogger(__name__)

DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # ours -> the safetensors format's
QUANTISED = {"fp8_e4m3fn": "F8_E4M3", "int8": "I8", "int4": "U8"}  # form -> the codes' format
GROUPS = {"int8": 128, "int4": 64}  # columns that share a factor, where the width allows it
GROUP_SIZES = (32, 64, 128)
# What a user asks for: a form, or one with other groups than its own; smaller ones are more exact and larger.
KINDS = (*QUANTISED, *(f"{form}_g{n}" for form, own in GROUPS.items() for n in GROUP_SIZES if n != own))
WEIGHT_DTYPES = ("auto", *DTYPES, *KINDS)
GGUF = "gguf"  # the form of a file's layers in GGUF's blocks, of whatever types; only as stored
METADATA = "helios_quantization"  # key in the file's metadata; its value is one of KINDS
FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale")
LINEAR = r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_qkv|to_out\.0)|ffn\.net\.(0\.proj|2))\.weight"
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # the text encoder's two names of one tensor
TEXT_FIRST = "encoder.block.0.layer.0.SelfAttention.q.weight"  # whose numbers all of a text encoder's compute in
TEXT_LINEAR = r"encoder\.block\.\d+\.layer\.(0\.SelfAttention\.[qkvo]|1\.DenseReluDense\.(wi_0|wi_1|wo))\.weight"


def is_float32(name: str) -> bool:
    """Whether the transformer's tensor of that published name stays float32 in any case."""
    return any(part in name for part in FLOAT32)


def is_quantised(name: str) -> bool:
    """Whether a quantised weight_dtype quantises the tensor of that published name."""
    return re.fullmatch(LINEAR, name) is not None


def compute_format(source, weight_dtype: str, *, fast_bf16: bool) -> str:
    """The safetensors format of the numbers of a transformer's `sources.Source` where nothing is quantised.

    auto is as stored, but float32 becomes bfloat16 where the device multiplies that at speed: half the memory, and what
    the released weights are. Codes are widened to bfloat16, which they were made from. ValueError for another dtype.
    """
    if weight_dtype in DTYPES:
        return DTYPES[weight_dtype]
    if weight_dtype != "auto":
        raise ValueError(f"weight_dtype {weight_dtype!r}: wanted auto, {', '.join(DTYPES)}")
    stored = source.tensors["proj_out.weight"].dtype
    return "BF16" if stored not in DTYPES.values() or (stored == "F32" and fast_bf16) else stored


@cache
def tell_narrowed(path) -> None:
    """Says once per file that auto computes in fewer bits than are stored."""
    LOG.warning("%s is stored in fp32 and computed in bf16, in half the memory; weight dtype fp32 keeps it", path)


def split_kind(kind: str) -> tuple[str, int | None]:
    """One of KINDS -> its form, and the columns that share a factor (None: the whole row). ValueError for another."""
    if kind not in KINDS:
        raise ValueError(f"quantisation to {kind!r}: wanted one of {', '.join(KINDS)}")
    form, _, columns = kind.partition("_g")
    return form, int(columns) if columns else GROUPS.get(form)


def group_size(kind: str, columns: int) -> int:
    """Columns that share a factor: the preferred number, or what divides both it and the width; fp8: all."""
    preferred = split_kind(kind)[1]
    return gcd(columns, preferred) if preferred else columns


def find_kind(source, weight_dtype: str) -> str | None:
    """How the linear layers of a transformer's `sources.Source` are to be quantised, if at all; auto: as stored.

    ValueError for what would be quantised twice.
    """
    stored = [t for name, t in source.tensors.items() if is_quantised(name) and t.kept]
    found = stored[0].kept if stored else None
    if weight_dtype not in KINDS:
        return found if weight_dtype == "auto" else None
    form, _ = split_kind(weight_dtype)
    if found is None or (form == found and weight_dtype == form):
        return weight_dtype
    if form == found and all(not t.blocks and group_size(weight_dtype, t.shape[1]) == stored_group(t) for t in stored):
        return weight_dtype
    raise ValueError(
        f"{source.path} holds {found} weights{' in other groups' if form == found else ''}; quantising them again to "
        f"{weight_dtype} would add both errors. Choose weight_dtype auto{'' if found == GGUF else f' or {found}'}, or "
        "take the original checkpoint"
    )


def stored_group(stored) -> int:
    """Columns of a `sources.Stored` weight that share a factor; without any: all."""
    grouped = stored.scale is not None and len(stored.scale.shape) == 2
    return stored.shape[1] // (stored.scale.shape[1] if grouped else 1)


def is_kept(name: str, stored, kind: str | None, weight_dtype: str) -> bool:
    """Whether a `sources.Stored` weight is held in fewer bits: quantised if that was asked for, else as it is stored.

    kind: of `find_kind`.
    """
    return kind is not None and is_quantised(name) and (weight_dtype in KINDS or stored.kept is not None)


def text_format(source) -> str:
    """The safetensors format of a text encoder's numbers, but for what is kept in fewer bits: that of its linear layers
    as they are stored, and BF16 where they are in fewer bits."""
    stored = source.tensors.get(TEXT_FIRST)
    return stored.dtype if stored is not None and stored.dtype in DTYPES.values() else "BF16"


def text_is_float32(name: str, computes_in: str) -> bool:
    """Whether a tensor of a text encoder is float32. UMT5's feed-forward output overflows in half precision;
    transformers keeps that layer in float32 too."""
    return computes_in == "F32" or (computes_in == "F16" and name.endswith(".wo.weight"))


def is_kept_text(name: str, stored, device: str) -> bool:
    """Whether torch holds a text encoder's `sources.Stored` weight as it is stored, in fewer bits: a linear layer's or
    the embedding's. device: its kind; Apple's GPU has no fp8."""
    if stored.kept is None or (stored.kept == "fp8_e4m3fn" and device == "mps"):
        return False
    return name in EMBEDDINGS or re.fullmatch(TEXT_LINEAR, name) is not None


def quantised_bytes(shape: tuple[int, int], kind: str) -> int:
    """Bytes of a quantised weight [o i] with its factors."""
    return sum(BYTES[dtype] * prod(size) for dtype, size in quantised_layout("weight", shape, kind).values())


def kernel_group(columns: int) -> int | None:
    """Of groups of so many columns, what MLX's kernels compute them in: themselves or parts; None where they cannot."""
    return next((size for size in reversed(GROUP_SIZES) if columns % size == 0), None)


def held_bytes(stored, kind: str, item: int, backend: str) -> int | None:
    """Bytes in memory of a `sources.Stored` weight that is quantised as `kind`; None where it is widened.

    item: bytes of a number of the layers' dtype. MLX keeps a factor and a zero of that size per group in both forms.
    """
    if stored.in_gguf:
        return stored.nbytes if backend == "torch" else None
    there = stored.kept is not None
    if stored.blocks:
        return stored.marks.held if backend == "torch" else None
    if backend == "torch":
        parts = (stored.codes, stored.scale, stored.zero)
        return sum(p.nbytes for p in parts if p) if there else quantised_bytes(stored.shape, kind)
    rows, columns = stored.shape
    group = kernel_group(stored_group(stored) if there else group_size(kind, columns))
    form = stored.kept or split_kind(kind)[0]
    if form not in GROUPS or group is None:
        return None
    return rows * (columns // (2 if form == "int4" else 1) + 2 * item * columns // group)


def quantised_layout(name: str, shape: tuple[int, int], kind: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What a weight [o i] is stored as: name -> (dtype of the safetensors format, shape)."""
    layer, (rows, columns), (form, _) = name.removesuffix("weight"), shape, split_kind(kind)
    groups = columns // group_size(kind, columns)
    if form == "fp8_e4m3fn":
        return {name: ("F8_E4M3", (rows, columns)), f"{layer}scale_weight": ("F32", (rows, 1))}
    found = {name: (QUANTISED[form], (rows, columns)), f"{layer}scale_weight": ("BF16", (rows, groups))}
    if form == "int4":
        return found | {name: ("U8", (rows, columns // 2)), f"{layer}zero_weight": ("BF16", (rows, groups))}
    return found
