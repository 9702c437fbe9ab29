"""The door to ComfyUI: its modules, folders, Stop. Each has a way without it. See also managed.py and live.py.

ComfyUI is present when its `folder_paths` is loaded; nothing of it is imported otherwise, whatever lies on sys.path.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
import uuid
from importlib import import_module
from pathlib import Path

from ..helios_core.checkpoint import folders

API = "comfy_api.v0_0_2"  # pinned: comfy_api.latest may change without warning
FROM_MODEL = "from model"  # the choice of a part that the checkpoint itself holds
CATEGORY = "helios"  # the key in folder_paths and in extra_model_paths.yaml


def comfy(name: str):
    """A module of ComfyUI, or None without ComfyUI."""
    return import_module(name) if present() else None


def present() -> bool:
    """Whether this is ComfyUI."""
    return "folder_paths" in sys.modules


def optional(name: str, what: str):
    """Something of a module of ComfyUI that not every version has, or None."""
    try:
        return getattr(comfy(name), what, None)
    except ModuleNotFoundError:
        return None


def model_folders() -> list[Path]:
    """Folders that hold checkpoints; tells ComfyUI of models/helios, and makes no folder."""
    paths = comfy("folder_paths")
    if paths is None:
        return folders.search_folders()
    paths.add_model_folder_path(CATEGORY, str(Path(paths.models_dir) / CATEGORY))
    return [Path(p) for p in paths.get_folder_paths(CATEGORY)]


def model_names() -> list[str]:
    """What HeliosLoader offers: helios-tiny, which ships with the pack, then the folders found, then the files of
    diffusion_models. Read anew each call."""
    return [folders.TINY, *folders.list_models(model_folders()), *file_names("diffusion_models")]


def model_path(name: str) -> Path | str:
    """The folder or file of a listed name. ValueError names the folders searched."""
    file = _file("diffusion_models", name)
    return file or folders.find_model(name, model_folders())


def file_names(kind: str, endings: tuple[str, ...] = folders.WEIGHTS) -> list[str]:
    """Files of ComfyUI's folders of a kind (diffusion_models, text_encoders, vae, loras), or of models/KIND here."""
    paths = comfy("folder_paths")
    if paths:
        names = _listed(paths, kind) if endings == folders.WEIGHTS else paths.get_filename_list(kind)
    else:
        names = folders.list_files(kind, endings)
    return [name for name in names if name.lower().endswith(endings)]


def _listed(paths, kind: str) -> list[str]:
    """What ComfyUI lists of a kind, then GGUF files of the same folders, which it does not."""
    own = f"{CATEGORY}_gguf_{kind}"
    if kind in paths.folder_names_and_paths:  # the very list of its folders, so that later ones are there too
        paths.folder_names_and_paths.setdefault(own, (paths.folder_names_and_paths[kind][0], {".gguf"}))
    found = paths.get_filename_list(own) if own in paths.folder_names_and_paths else []
    return list(dict.fromkeys([*paths.get_filename_list(kind), *found]))


def _file(kind: str, name: str, endings: tuple[str, ...] = folders.WEIGHTS) -> Path | None:
    paths = comfy("folder_paths")
    found = paths.get_full_path(kind, name) if paths else folders.list_files(kind, endings).get(name)
    return found and Path(found)


def part_path(kind: str, name: str) -> Path | None:
    """The file of a listed name; None for "from model". ValueError if it is gone."""
    if name == FROM_MODEL:
        return None
    if (file := _file(kind, name)) is None:
        raise ValueError(f"no file named {name!r} in {kind}; put it into models/{kind} and press R")
    return file


def fingerprint(model: str, text_encoder: str, vae: str) -> str:
    """A short text that changes when files change on disk that a loader's choices name."""
    model_at = folders.list_models(model_folders()).get(model) or _file("diffusion_models", model)
    places = [model_at, _file("text_encoders", text_encoder), _file("vae", vae)]
    files = sorted(p for place in places if place for p in (place.rglob("*") if place.is_dir() else [place]))
    facts = [model, text_encoder, vae, *(file_stamp(path) for path in files if path.is_file())]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def lora_names() -> list[str]:
    """LoRAs of ComfyUI's loras folder, or of models/loras here."""
    return file_names("loras", folders.SAFETENSORS)


def companion_names() -> list[str]:
    """Companion files of official LoRAs in the same folder; the only pickles that are read."""
    return file_names("loras", (".pth",))


def lora_path(name: str) -> Path:
    """The file of a listed LoRA or companion. ValueError names the folders searched."""
    found, paths = _file("loras", name, (*folders.SAFETENSORS, ".pth")), comfy("folder_paths")
    if found is None:
        places = paths.get_folder_paths("loras") if paths else [folders.kind_folder("loras")]
        raise ValueError(f"no LoRA file named {name!r} in {', '.join(map(str, places))}; put it there and press R")
    return found


def control_path(name: str) -> Path:
    """The file of a control adapter: the one that ships, or a listed one. ValueError if it is gone."""
    from ..helios_core.control import ADAPTERS, TINY_ADAPTER, find_adapter

    return find_adapter(name) if name == TINY_ADAPTER else part_path(ADAPTERS, name)


def file_stamp(path: Path) -> str:
    """A short text that changes when a file changes on disk."""
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


def cache_folder() -> Path | None:
    """Where prompt embeddings are kept: HELIOS_CACHE, else ComfyUI's user folder, else the core's choice."""
    paths = comfy("folder_paths")
    if paths is None or folders.CACHE in os.environ:
        return folders.cache_folder()
    return Path(paths.get_user_directory()) / "helios"


def stop_check():
    """A function that raises if the user pressed Stop; None without ComfyUI, where Ctrl-C raises by itself."""
    management = comfy("comfy.model_management")
    return management and management.throw_exception_if_processing_interrupted


def clip_folder() -> Path:
    """A new name for the folder of one video's chunks: in ComfyUI's temp, or where the workflow runner wants it."""
    from ..helios_core.workflow import current

    paths, run = comfy("folder_paths"), current()
    if paths:
        root = Path(paths.get_temp_directory()) / "helios"
    elif run:
        return run.clip_folder()
    else:
        root = Path(tempfile.gettempdir()) / "helios"
    return root / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def input_folders() -> list[str]:
    """Names of the folders in the input folder. Read anew each call."""
    root = input_folder()
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def input_place(name: str) -> Path:
    """One of them by its name. ValueError for another."""
    if name not in input_folders():
        raise ValueError(f"no folder named {name!r} in {input_folder()}; put it there and press R")
    return input_folder() / name


def new_lora(name: str) -> Path:
    """A file to write in the loras folder: of that name, or the next free one. ValueError for a name that is none."""
    from ..helios_core.disk import free_name, inside

    if not (stem := name.strip().removesuffix(".safetensors")):
        raise ValueError("output_name: the LoRA needs a file name, such as my_lora")
    paths = comfy("folder_paths")
    root = Path(paths.get_folder_paths("loras")[0]) if paths else folders.kind_folder("loras")
    return free_name(inside(root, f"{stem}.safetensors"))


def output_folder() -> Path:
    """Where files are saved: ComfyUI's output folder, the workflow runner's, or this one."""
    from ..helios_core.workflow import current

    paths, run = comfy("folder_paths"), current()
    return Path(paths.get_output_directory()) if paths else run.output_dir if run else Path.cwd()


def input_folder() -> Path:
    """Where files are looked for that the user brings."""
    from ..helios_core.workflow import current

    paths, run = comfy("folder_paths"), current()
    return Path(paths.get_input_directory()) if paths else run.input_dir if run else Path.cwd()


def new_output(prefix: str, suffix: str) -> tuple[Path, str]:
    """A new file of the output folder, prefix_00001_suffix and so on, and its name in it; makes its folder."""
    from ..helios_core.workflow import current, free_name

    folder, run = output_folder(), current()
    path = run.new_file(lambda: free_name(folder, prefix, suffix)) if run else free_name(folder, prefix, suffix)
    return path, path.relative_to(folder).as_posix()


def made(path: Path) -> None:
    """Tells the workflow runner of a file; ComfyUI needs no telling."""
    from ..helios_core.workflow import current

    if run := current():
        run.made(path)


def find_saved(name: str) -> Path:
    """A saved run of the output folder, else of the input folder. ValueError names those that there are."""
    from ..helios_core.history import saved

    return saved.find(name, list(dict.fromkeys([output_folder(), input_folder()])))
