"""Tensors out of weights files, one at a time, so that host memory never holds a second copy of the weights.

A tensor that is used as it is stored, on the CPU, stays mapped: it costs no memory of its own and the system may drop
and read it again. All others are read into memory of their own, which is freed once they are cast or moved.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import Source, Stored, Unpacked, cut, unpack
from . import ahead, gguf
from .quant import dequantise
from .quantising import quantise

NO_RESERVE = 0x4000  # MAP_NORESERVE, which Python names from 3.12 on
STORED = {
    **{"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8, "U8": torch.uint8},
    **{"I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "BOOL": torch.bool},
    **{"F8_E8M0": torch.uint8, "F4": torch.uint8},  # bits that only marks tell the meaning of
}


def read(stored: Stored) -> Tensor:
    """A copy in memory of what the file holds, its factors not applied.

    ValueError for a file that has become shorter.
    """
    data = torch.empty(stored.nbytes, dtype=torch.uint8)
    if ahead.ASKS:
        ahead.ask(stored.file, stored.start, stored.nbytes)
    with stored.file.open("rb") as file:
        file.seek(stored.start)
        if file.readinto(data.numpy()) != stored.nbytes:
            raise ValueError(f"{stored.file} ended inside {stored.key}; it changed while it was read")
    return data.view(STORED.get(stored.dtype, torch.uint8)).view(stored.stored_shape)


def widen(stored: Stored) -> Tensor:
    """A copy in memory of the weight that codes and factors make; float32 if there are factors."""
    if stored.blocks:
        found = unpack(stored)
        return widened(cut(read(stored), stored) if found.codes is None else None, found, torch.float32)
    codes = read(stored)
    if stored.in_gguf:
        return gguf.widen(stored.dtype, codes, torch.empty(stored.shape))
    if stored.scale is None:
        return codes
    scale, zero = read(stored.scale).float(), None if stored.zero is None else read(stored.zero).float()
    check_factors(stored, scale, zero)
    if scale.ndim == 2:
        return dequantise(codes, scale, zero, torch.float32)
    return codes.float() * scale.reshape(-1, *[1] * (codes.ndim - 1))


def as_float32(stored: Stored) -> np.ndarray:
    """The float32 numbers of a stored weight, its factors applied."""
    return widen(stored).float().numpy()


def check_factors(stored: Stored, *factors: Tensor | None) -> None:
    """ValueError for NaN or infinity among them."""
    if not all(bool(torch.isfinite(part.float()).all()) for part in factors if part is not None):
        raise ValueError(f"{stored.file}: factors of {stored.key} are NaN or infinite; download the file again")


def widened(codes: Tensor | None, found: Unpacked, dtype: torch.dtype) -> Tensor:
    """The weight [o i] of unpacked codes and factors. codes: as stored, for what has none of its own."""
    codes, *factors = tensors(codes, found)
    return dequantise(codes, *factors[:2], dtype, found.rotation, factors[2])


def tensors(codes: Tensor | None, found: Unpacked) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Codes, scale, zero and columns of what was unpacked, float32."""
    own = codes if found.codes is None else torch.from_numpy(found.codes)
    factors = (found.scale, found.zero, found.columns)
    return own, *(None if part is None else torch.from_numpy(part) for part in factors)


def check_finite(name: str, stored: Stored) -> None:
    """ValueError for NaN or infinity."""
    if not bool(torch.isfinite(widen(stored).float()).all()):
        raise ValueError(f"{name} holds NaN or infinity; the checkpoint is broken, download it again")


def quantised_bytes(name: str, stored: Stored, kind: str) -> Iterator[tuple[str, list]]:
    """A stored weight in fewer bits: the names and bytes of what it becomes."""
    for key, part in quantise(name, widen(stored), kind).items():
        yield key, [part.contiguous().view(torch.uint8).numpy()]


def map_file(path: Path) -> Tensor:
    """Its bytes [n], read when they are touched; writing changes copies of the pages, never the file.

    Without a reserve for such copies: Linux refuses it for a file as large as its memory.
    """
    with path.open("rb") as file:
        if sys.platform == "win32":
            return torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
        flags = mmap.MAP_PRIVATE | (NO_RESERVE if sys.platform == "linux" else 0)
        whole = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        return torch.frombuffer(whole, dtype=torch.uint8)


class Files:
    """Files mapped once each; a mapping lives as long as a tensor of it.

    whole: a part that is about to be read; if the host has memory for it, what is mapped is waited for.
    """

    def __init__(self, whole: Source | None = None):
        self.mapped: dict[Path, Tensor] = {}
        self.brings = whole is not None and ahead.fits(whole)

    def read(self, stored: Stored, dtype: torch.dtype, device, *, own: bool = False) -> Tensor:
        """The tensor, its factors applied, in `dtype` on `device`. own: in memory of its own in any case."""
        same = STORED.get(stored.dtype) == dtype and torch.device(device).type == "cpu" and stored.scale is None
        if same and not own and stored.start % dtype.itemsize == 0:
            return self.map(stored)
        if stored.in_gguf:  # without a float32 copy of the whole
            return gguf.widen(stored.dtype, self.map(stored.codes), torch.empty(stored.shape, dtype=dtype)).to(device)
        return widen(stored).to(device=device, dtype=dtype)

    def map(self, stored: Stored) -> Tensor:
        """As stored, its bytes those of the file."""
        if stored.file not in self.mapped:
            self.mapped[stored.file] = map_file(stored.file)
        data = self.mapped[stored.file][stored.start : stored.start + stored.nbytes]
        if self.brings:
            ahead.bring(stored.file, stored.start, data)
        return data.view(STORED[stored.dtype]).view(stored.filled)
