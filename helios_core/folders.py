"""Where checkpoints are looked for without ComfyUI, and which folders are checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

TINY = "helios-tiny"
VARIABLE = "HELIOS_MODELS"
DEPTH = 2  # models/helios/Helios-Distilled, and models/helios/owner/Helios-Distilled


def search_folders() -> list[Path]:
    """The folders of the environment variable HELIOS_MODELS, then ./models/helios. They need not exist."""
    named = [Path(p).expanduser() for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p.strip()]
    return [*named, Path.cwd() / "models" / "helios"]


def list_models(folders) -> dict[str, Path]:
    """Name -> folder of every checkpoint in the published layout below `folders`; the first of a name wins."""
    found: dict[str, Path] = {}
    for root in map(Path, folders):
        for folder in _checkpoints(root, DEPTH):
            found.setdefault(folder.relative_to(root).as_posix(), folder)
    return dict(sorted(found.items()))


def _checkpoints(folder: Path, depth: int):
    if not depth or not folder.is_dir():
        return
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir())
    except PermissionError:
        return
    for child in children:
        if (child / "model_index.json").is_file():
            yield child
        else:
            yield from _checkpoints(child, depth - 1)


def find_model(name: str, folders) -> Path | str:
    """The folder of a checkpoint by its listed name; helios-tiny stands for itself. ValueError names what there is."""
    if name == TINY:
        return TINY
    models = list_models(folders)
    if name not in models:
        places = ", ".join(map(str, folders))
        raise ValueError(
            f"no checkpoint named {name!r} in {places}; there is {', '.join([TINY, *models])}. "
            "Put a folder in the published layout (model_index.json, transformer/, vae/ ...) there."
        )
    return models[name]
