"""Writes a trained Unified Latents model as the file that inference reads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from ..backends.torch.ul import UL
from ..ul_files import describe


def save(model: UL, file: Path, *, steps: int, dtype: torch.dtype = torch.float32) -> Path:
    """All parts of the model, cast to `dtype`; `file` appears whole or not at all. steps: that it was trained for."""
    tensors = {name: value.detach().to(dtype).cpu().contiguous() for name, value in model.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, describe(model.config, steps))
    partial.chmod(0o644)  # safetensors writes for the owner only
    return partial.replace(file)
