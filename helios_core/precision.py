"""Which number format each tensor of the transformer is kept in. No framework.

Three classes: the float32 islands of the reference, the linear layers of attention and feed-forward, which may be
quantised, and the rest (embeddings, biases, text and output projections), which keep the networks' dtype.
"""

from __future__ import annotations

import re
from math import gcd

DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # ours -> the safetensors format's
QUANTISED = {"fp8_e4m3fn": "F8_E4M3", "int8": "I8", "int4": "U8"}
WEIGHT_DTYPES = ("auto", *DTYPES, *QUANTISED)
GROUPS = {"int8": 128, "int4": 64}  # columns that share a factor, where the width allows it
METADATA = "helios_quantization"  # key in the file's metadata; its value is one of QUANTISED
FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale")
LINEAR = re.compile(r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_qkv|to_out\.0)|ffn\.net\.(0\.proj|2))\.weight")


def is_float32(name: str) -> bool:
    """Whether the transformer's tensor of that published name stays float32 in any case."""
    return any(part in name for part in FLOAT32)


def is_quantised(name: str) -> bool:
    """Whether a quantised weight_dtype quantises the tensor of that published name."""
    return LINEAR.fullmatch(name) is not None


def group_size(dtype: str, columns: int) -> int:
    """Columns that share a factor: the preferred number, or what divides both it and the width; fp8: all."""
    return gcd(columns, GROUPS[dtype]) if dtype in GROUPS else columns


def quantised_bytes(shape: tuple[int, int], dtype: str) -> int:
    """Bytes of a quantised weight [o i] with its factors."""
    rows, columns = shape
    groups = columns // group_size(dtype, columns)
    if dtype == "int4":
        return rows * (columns // 2 + 4 * groups)
    return rows * (columns + (4 if dtype == "fp8_e4m3fn" else 2 * groups))


def quantised_layout(name: str, shape: tuple[int, int], dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What a weight [o i] is stored as: name -> (dtype of the safetensors format, shape)."""
    layer, (rows, columns) = name.removesuffix("weight"), shape
    groups = columns // group_size(dtype, columns)
    if dtype == "fp8_e4m3fn":
        return {name: ("F8_E4M3", (rows, columns)), f"{layer}scale_weight": ("F32", (rows, 1))}
    found = {name: (QUANTISED[dtype], (rows, columns)), f"{layer}scale_weight": ("BF16", (rows, groups))}
    if dtype == "int4":
        return found | {name: ("U8", (rows, columns // 2)), f"{layer}zero_weight": ("BF16", (rows, groups))}
    return found
