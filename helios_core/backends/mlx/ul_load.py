"""Unified Latents models into MLX: strict by name and shape."""

from __future__ import annotations

import mlx.core as mx

from ...ul_files import ULFile
from .fill import fill
from .ul import UL


def load_ul(file: ULFile, parts: tuple[str, ...], *, device=None) -> UL:
    """Some of a file's parts, in float32 whatever the file has. ValueError for a part or a tensor that is missing."""
    source = file.narrow(parts)
    return fill(UL(file.config, parts), source, lambda _: mx.float32)
