"""Unified Latents models into torch: built on meta, strict by name and shape."""

from __future__ import annotations

import torch

from ...ul_files import ULFile
from .load import _fill
from .ul import UL


def load_ul(file: ULFile, parts: tuple[str, ...], *, device) -> UL:
    """Some of a file's parts, in float32 whatever the file has. ValueError for a part or a tensor that is missing."""
    source = file.narrow(parts)
    return _fill(lambda: UL(file.config, parts), source, lambda _: torch.float32, device)
