"""Safetensors that training writes: whole or not at all, and shards that are made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..disk import replacing
from ..ul import describe
from .loop import among_local

WAIT = 0.2  # seconds between two looks for a file of another process


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> Path:
    """`file` with its folder, in one step; metadata: beside the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(file) as part:
        save_file(tensors, part, {"format": "pt", **(metadata or {})})
    return file


def load_shards(folder: Path, name: str, count: int, make: Callable[[int], dict]) -> Iterator[dict[str, Tensor]]:
    """The tensors of NAME_000 to NAME_count in `folder`; those that are missing are made, and kept. The processes of a
    machine that train together make a share of them each, and wait for files alone: no library grows impatient."""
    files = [folder / f"{name}_{index:03d}.safetensors" for index in range(count)]
    number, processes = among_local()
    for index, file in list(enumerate(files))[number::processes]:
        if not file.is_file():
            save(make(index), file)
            print(f"{name} {index + 1} of {count}", flush=True)
    for file in files:
        while not file.is_file():
            time.sleep(WAIT)
        yield load_file(file)


def save_ul(model, file: Path, *, steps: int, dtype: torch.dtype = torch.float32) -> Path:
    """All parts of a Unified Latents model, cast to `dtype`, for inference. steps: that it was trained for."""
    tensors = {name: value.to(dtype) for name, value in model.state_dict().items()}
    return save(tensors, file, describe(model.config, steps))
