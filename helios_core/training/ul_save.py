"""Writes a trained Unified Latents model as the file that inference reads."""

from __future__ import annotations

from pathlib import Path

import torch

from ..backends.torch.ul import UL
from ..ul_files import describe
from . import files


def save(model: UL, file: Path, *, steps: int, dtype: torch.dtype = torch.float32) -> Path:
    """All parts of the model, cast to `dtype`; `file` appears whole or not at all. steps: that it was trained for."""
    tensors = {name: value.to(dtype) for name, value in model.state_dict().items()}
    return files.save(tensors, file, describe(model.config, steps))
