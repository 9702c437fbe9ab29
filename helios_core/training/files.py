"""Safetensors that training writes: whole or not at all, and shards that are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..disk import replacing
from ..ul import describe


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> Path:
    """`file` with its folder, in one step; metadata: beside the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(file) as part:
        save_file(tensors, part, {"format": "pt", **(metadata or {})})
    return file


def load_shards(folder: Path, name: str, count: int, make: Callable[[int], dict]) -> Iterator[dict[str, Tensor]]:
    """The tensors of NAME_000 to NAME_count in `folder`; those that are missing are made, and kept."""
    for index in range(count):
        file = folder / f"{name}_{index:03d}.safetensors"
        if not file.is_file():
            save(make(index), file)
            print(f"{name} {index + 1} of {count}", flush=True)
        yield load_file(file)


def save_ul(model, file: Path, *, steps: int, dtype: torch.dtype = torch.float32) -> Path:
    """All parts of a Unified Latents model, cast to `dtype`, for inference. steps: that it was trained for."""
    tensors = {name: value.to(dtype) for name, value in model.state_dict().items()}
    return save(tensors, file, describe(model.config, steps))
