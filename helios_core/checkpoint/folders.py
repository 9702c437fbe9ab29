"""Where checkpoints are looked for without ComfyUI, which folders are checkpoints, and where a cache may be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TINY = "helios-tiny"
VARIABLE = "HELIOS_MODELS"
CACHE = "HELIOS_CACHE"
SAFETENSORS = (".safetensors", ".sft")
WEIGHTS = (*SAFETENSORS, ".gguf")
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
    except OSError:  # not ours to look into
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
            "Fetch a published one with helios download, or put its folder (model_index.json, transformer/ ...) there."
        )
    return models[name]


def kind_folder(kind: str) -> Path:
    """Where files of a kind (diffusion_models, text_encoders, vae, loras) are looked for by name without ComfyUI."""
    return Path.cwd() / "models" / kind


def list_files(kind: str, endings: tuple[str, ...] = WEIGHTS) -> dict[str, Path]:
    """Name, with its folder below models/KIND -> file, of files with one of the endings, without ComfyUI."""
    root = kind_folder(kind)
    files = (file for file in sorted(root.rglob("*")) if file.name.lower().endswith(endings))
    return {file.relative_to(root).as_posix(): file for file in files}


def find_checkpoint(name: str) -> Path | str:
    """A checkpoint by its path, or by the name of a listed folder or file; helios-tiny stands for itself."""
    if name != TINY and Path(name).exists():
        return Path(name)
    files = list_files("diffusion_models")
    return files[name] if name in files else find_model(name, search_folders())


def find_file(kind: str, name: str | None) -> Path | None:
    """A part's file or folder by its path or by its listed name; None stays None. ValueError names what there is."""
    if name is None or Path(name).exists():
        return None if name is None else Path(name)
    files = list_files(kind)
    if name not in files:
        raise ValueError(f"no file {name!r}, here or in models/{kind}, which holds {', '.join(files) or 'none'}")
    return files[name]


def cache_folder() -> Path | None:
    """Where things are kept that can be made again: HELIOS_CACHE, else the platform's place; None if that says "off".

    Nothing is made or read here.
    """
    named = os.environ.get(CACHE, "").strip()
    if named.lower() in ("off", "0", "none"):
        return None
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "helios-video"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "helios-video" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "helios-video"
