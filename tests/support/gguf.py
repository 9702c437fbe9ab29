"""GGUF files written by the gguf package, as others write them."""

from __future__ import annotations

import numpy as np
import pytest

package = pytest.importorskip("gguf")
TYPES = package.GGMLQuantizationType


def write(path, tensors: dict, *, arch="wan", kind=None, texts=(), extra=None, flat=False):
    """tensors: name -> float array. kind: of matrices whose rows are whole blocks, or a function of their names; others
    are F32 (flat: those of more than four dimensions as rows, with their shape beside). texts: pairs. extra: called
    with the writer."""
    writer = package.GGUFWriter(path, arch)
    for key, value in texts:
        writer.add_string(key, value)
    for name, value in tensors.items():
        chosen = kind(name) if callable(kind) else kind
        value = np.ascontiguousarray(value, dtype=np.float32)
        matrix = value.ndim == 2
        if value.ndim > 4 and flat:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(value.shape))
            value = value.reshape(len(value), -1)
        fits = chosen and matrix and value.shape[1] % package.GGML_QUANT_SIZES[TYPES[chosen]][0] == 0
        dtype = TYPES[chosen if fits else "F32"]
        writer.add_tensor(name, package.quantize(value, dtype), raw_dtype=dtype)
    if extra:
        extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path) -> dict[str, np.ndarray]:
    """Name -> the float32 numbers, by the package, in the shapes that the file has."""
    return {
        t.name: package.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist())
        for t in package.GGUFReader(path).tensors
    }


def noise(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random blocks [rows bytes] of a type, whose factors are numbers of ordinary size."""
    size, nbytes = package.GGML_QUANT_SIZES[TYPES[kind]]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (rows * columns // size, nbytes), dtype=np.uint8)
    ends = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(kind, (0, 2) if kind[-2:] in ("_1", "_K") else (0,))
    for at in ends:
        factors = rng.uniform(0.01, 0.1, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = factors.view(np.uint8)
    return blocks.reshape(rows, -1)
